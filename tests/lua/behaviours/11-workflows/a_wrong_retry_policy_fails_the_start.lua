-- 11.2 What is wrong inside a retry policy fails the spawn, too.
return function()
  local wrong = {
    { maximum_attempts = "three" }, { initial_interval = "soon" }, { backoff_coefficient = {} },
    { non_retryable_error_types = "Internal" },
  }
  for _, policy in ipairs(wrong) do
    check.fails("Invalid", "retry_policy",
      process.with_options({ retry_policy = policy }):spawn("lua.support:wf.echo", "lua.support:worker"))
  end
end
