-- Gives a random number.
return { main = function() return math.random(1, 2 ^ 50) end }
