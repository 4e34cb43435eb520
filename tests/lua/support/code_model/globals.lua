return {
  set = function() a_global_of_the_suite = 1 return a_global_of_the_suite end,
  read = function() return rawget(_G, "a_global_of_the_suite") end,
}
