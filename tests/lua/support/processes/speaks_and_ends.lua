-- Sends the numbers 1 to `count` as "word" to the owner, and ends.
return { main = function(owner, count)
  for i = 1, count do process.send(owner, "word", i) end
end }
