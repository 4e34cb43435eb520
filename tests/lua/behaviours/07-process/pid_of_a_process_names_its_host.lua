-- 5.1 The PID of a process is `{[node@]<host entry ID>|0x0000a}`, a hex counter of at least five digits.
return function()
  local about = process.exec("lua.support:about", "lua.support:processes")
  check.matches(about.pid, "^{[^|]*lua%.support:processes|0x%x%x%x%x%x+}$")
end
