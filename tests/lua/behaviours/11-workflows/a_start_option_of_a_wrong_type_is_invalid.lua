-- 11.2 A start option of a wrong type fails the spawn with Invalid, `<key> must be ...`.
return function()
  local wrong = {
    id = 5, task_queue = true, execution_timeout = true, run_timeout = {}, task_timeout = "soon", start_delay = "5 apples",
    id_conflict_policy = 1, id_reuse_policy = {}, execution_error_when_already_started = "yes", retry_policy = "twice",
    cron_schedule = 5, memo = "text", search_attributes = 5, parent_close_policy = true, wait_for_cancellation = 1,
    namespace = {},
  }
  for key, value in pairs(wrong) do
    local err = check.fails("Invalid", "^" .. key .. " must be ",
      process.with_options({ [key] = value }):spawn("lua.support:wf.echo", "lua.support:worker"))
    check.is_false(err:retryable(), key)
  end
end
