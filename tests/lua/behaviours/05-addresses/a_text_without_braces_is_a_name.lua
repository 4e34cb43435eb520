-- 5.1 Braces and `|` are required when parsing a PID; anything else is a name.
return function()
  check.fails("NotFound", "could not resolve", process.send("lua.support:processes|0x00001", "topic"))
  check.fails("NotFound", "could not resolve", process.send("{lua.support:processes}", "topic"))
end
