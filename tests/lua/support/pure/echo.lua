-- Gives back what it is given.
return function(value)
  return value
end
