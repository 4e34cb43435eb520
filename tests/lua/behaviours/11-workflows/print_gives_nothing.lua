-- 11.1 `print` and the other globals are there in a workflow.
-- as: workflow
return function()
  check.equal(select("#", print("a line of a workflow", 1)), 0)
  for _, global in ipairs({ "channel", "process", "coroutine", "errors", "payload" }) do
    check.type_is(_G[global], "table", global)
  end
  check.type_is(coroutine.spawn, "function")
end
