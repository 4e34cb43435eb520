-- 7.1 `process.event` names the kinds of lifecycle events.
return function()
  check.equal(process.event.CANCEL, "pid.cancel")
  check.equal(process.event.EXIT, "pid.exit")
  check.equal(process.event.LINK_DOWN, "pid.link.down")
end
