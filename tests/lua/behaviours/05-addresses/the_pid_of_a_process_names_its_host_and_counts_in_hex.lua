-- 5.1 Process: `{[node@]<host entry ID>|0x0000a}`: hex counter, at least five digits.
return function()
  local pid, err = process.spawn("lua.support:answers", "lua.support:processes")
  check.is_nil(err)
  local host, unique = pid:match("^{(.-)|(.-)}$")
  check.equal((host:gsub("^.*@", "")), "lua.support:processes")
  check.matches(unique, "^0x%x%x%x%x%x+$")
  check.is_true(process.send(pid, "stop"))
end
