-- 11.3 `fail` and `execution_error_when_already_started`: nil, err while one with the id runs, and nothing is delivered.
-- imports: wf=lua.support:wf.lib
return function()
  local id = check.unique("refused")
  local pid = wf.start("wf.collect", { id = id }, 1)
  for _, option in ipairs({ { id_conflict_policy = "fail" }, { execution_error_when_already_started = true } }) do
    local spawner = process.with_options({ id = id }):with_options(option):with_message("from the refused", 1)
    local value, err = spawner:spawn("lua.support:wf.collect", wf.worker, 1)
    check.is_nil(value)
    check.type_is(err, "userdata")
  end
  process.send(pid, "topic", 5)
  check.equal(wf.value(pid)[1].topic, "topic")
end
