-- 3.3 What a unit returns: the first value, a text or an Error as the second; of a workflow an empty kind is Internal (11.7).
-- as: workflow
return function()
  local worker = "lua.support:worker"
  check.equal({ process.exec("lua.support:returns_as_workflow", worker, "nil") }, { 1 })
  check.fails("Internal", "^went wrong$", process.exec("lua.support:returns_as_workflow", worker, "text"))
  local _, err = process.exec("lua.support:returns_as_workflow", worker, "error")
  check.error_is(err, "Conflict", "^no stock$", true)
  check.equal(err:details().sku, "x1")
  check.fails("Internal", "^who knows$", process.exec("lua.support:returns_as_workflow", worker, "unknown kind"))
end
