-- 6.4 Only when it holds nothing that could ever wake it, it fails with kind Internal; a workflow too.
-- as: workflow
return function()
  local child, err = process.exec("lua.support:blocked_workflow", "lua.support:worker")
  check.is_nil(child)
  check.error_is(err, "Internal", "all coroutines blocked")
end
