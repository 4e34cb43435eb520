-- 11.2 A wrong type fails the spawn of a child with Invalid.
-- as: workflow
return function()
  check.fails("Invalid", "^run_timeout must be ",
    process.with_options({ run_timeout = true }):spawn("lua.support:wf.echo", "lua.support:worker"))
  check.fails("Invalid", "^parent_close_policy must be ",
    process.with_options({ parent_close_policy = "maybe" }):spawn("lua.support:wf.echo", "lua.support:worker"))
  check.fails("Invalid", "retry_policy",
    process.with_options({ retry_policy = { maximum_attempts = "x" } }):spawn("lua.support:wf.echo", "lua.support:worker"))
end
