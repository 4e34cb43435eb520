-- 11.3 With `use_existing` the queued messages go to the running workflow as signals, in order (trap 12).
-- imports: wf=lua.support:wf.lib
return function()
  local name = check.unique("messages")
  local pid = wf.start("wf.collect", { id = name }, 2)
  local again = process.with_options({ id = name }):with_message("a", 1):with_message("b", 2)
  check.equal(again:spawn("lua.support:wf.collect", wf.worker, 99), pid)
  local got = wf.value(pid)
  check.equal({ got[1].topic, got[1].value, got[2].topic, got[2].value }, { "a", 1, "b", 2 })
end
