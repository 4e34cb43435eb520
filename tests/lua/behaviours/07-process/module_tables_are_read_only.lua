-- 7.3 The tables of the module are read-only.
return function()
  check.raises(function() process.send = print end)
  check.raises(function() process.mine = 1 end)
  check.raises(function() process.event.EXIT = "x" end)
  check.raises(function() process.registry.LOCAL = 7 end)
  check.equal(process.event.EXIT, "pid.exit")
  check.equal(process.registry.LOCAL, 0)
end
