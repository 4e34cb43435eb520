-- 3.3 What a unit returns: the first value, a text or an Error as the second; for processes as for functions.
return function()
  local host = "lua.support:processes"
  check.equal({ process.exec("lua.support:returns_as_process", host, "nil") }, { 1 })
  check.fails("Internal", "^went wrong$", process.exec("lua.support:returns_as_process", host, "text"))
  local _, err = process.exec("lua.support:returns_as_process", host, "error")
  check.error_is(err, "Conflict", "^no stock$", true)
  check.equal(err:details(), { sku = "x1" })
  check.fails("", "^who knows$", process.exec("lua.support:returns_as_process", host, "unknown kind"))
end
