-- 11.3 Startup messages of a child come first, in order; their sender is the parent.
-- as: workflow
-- imports: wf=lua.support:wf.lib
return function()
  local pid = process.with_context({}):with_message("a", 1):with_message("b", 2):spawn("lua.support:wf.collect", "lua.support:worker", 3)
  check.is_true(process.send(pid, "c", 3))
  local me = process.pid()
  check.equal(wf.value(pid), {
    { topic = "a", value = 1, from = me }, { topic = "b", value = 2, from = me }, { topic = "c", value = 3, from = me },
  })
end
