-- 7.3 `process.send` to a PID that nobody has: `NotFound`, `process not found`.
return function()
  check.fails("NotFound", "process not found", process.send("{lua.support:processes|0x00001}", "x", 1))
end
