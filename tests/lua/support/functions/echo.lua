-- Gives all its arguments as a list, or the only one as it is.
return { main = function(...)
  if select("#", ...) == 1 then return (...) end
  return { n = select("#", ...), ... }
end }
