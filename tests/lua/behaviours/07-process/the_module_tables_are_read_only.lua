-- 7.3 Module tables are read-only.
return function()
  check.raises(function() process.send = nil end)
  check.raises(function() process.mine = 1 end)
  check.raises(function() channel.new = nil end)
  check.type_is(process.send, "function")
end
