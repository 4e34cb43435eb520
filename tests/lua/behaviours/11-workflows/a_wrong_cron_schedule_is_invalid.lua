-- 11.2 A `cron_schedule` has five fields; what cannot be read fails the spawn.
return function()
  for _, schedule in ipairs({ "every day", "* * *", "a b c d e", "99 * * * *" }) do
    check.fails("Invalid", nil, process.with_options({ id = check.unique("cron"), cron_schedule = schedule })
      :spawn("lua.support:wf.echo", "lua.support:worker"))
  end
end
