-- Gives all its arguments as a list, or the only one as it is. The chunk gives a bare function.
return function(...)
  if select("#", ...) == 1 then return (...) end
  return { n = select("#", ...), ... }
end
