-- 11.8 `link` and `unlink` of a running workflow: true; the end is told to who is still linked.
return function()
  process.set_options{ trap_links = true }
  local one = process.spawn("lua.support:wf.wait", "lua.support:worker")
  local other = process.spawn("lua.support:wf.wait", "lua.support:worker")
  check.is_true(process.link(one))
  check.is_true(process.link(other))
  check.is_true(process.unlink(other))
  process.send(other, "fail", { message = "other" })
  process.send(one, "fail", { message = "one" })
  local down = check.receive(process.events())
  check.equal({ down.kind, down.from, down.result.error:message() }, { "pid.link.down", one, "one" })
  check.nothing(process.events())
end
