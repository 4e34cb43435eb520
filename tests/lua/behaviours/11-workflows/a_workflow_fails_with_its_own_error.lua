-- 11.7 A workflow that returns nil, err fails with that: kind (none becomes Internal), message, retryable, details.
-- imports: wf=lua.support:wf.lib
return function()
  local full = { message = "m", kind = "Conflict", retryable = true, details = { a = { 1 } } }
  local err = wf.error(wf.start("wf.fail", nil, full))
  check.error_is(err, "Conflict", "^m$", true)
  check.equal(err:details().a, { 1 })
  check.error_is(wf.error(wf.start("wf.fail", nil, { message = "m" })), "Internal", "^m$", "unsaid")
  check.error_is(wf.error(wf.start("wf.fail", nil, full, true)), "Conflict", "^m$", true)
  check.error_is(wf.error(wf.start("wf.fail", nil, "it broke")), "Internal", "fail%.lua:%d+: it broke$")
end
