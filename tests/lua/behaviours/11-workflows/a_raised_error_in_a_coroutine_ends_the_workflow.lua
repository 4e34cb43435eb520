-- 11.4 An error that nobody catches ends the workflow, in whichever coroutine (3.1).
-- as: workflow
return function()
  local value, err = process.exec("lua.support:wf.crashes", "lua.support:worker")
  check.is_nil(value)
  check.error_is(err, "Internal", "crashes%.lua:3: it broke$")
end
