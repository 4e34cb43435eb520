-- 7.2 `with_message(topic, ...)`: delivered first; repeatable, order kept; with sender "" on a process host.
return function()
  local pid = process.with_options({}):with_message("a", 1):with_message("b", 2):spawn(
    "lua.support:relays", "lua.support:processes", process.pid())
  process.send(pid, "c", 3)
  local inbox = process.inbox()
  for i, topic in ipairs{ "a", "b", "c" } do
    local m = check.receive(inbox)
    check.equal({ m:topic(), m:payload():data() }, { topic, i })
  end
  process.send(pid, "stop")
  pid = process.with_options({}):with_message("hello", 1):spawn_monitored("lua.support:says_sender", "lua.support:processes")
  check.equal(check.receive(process.events()).result.value, "")
end
