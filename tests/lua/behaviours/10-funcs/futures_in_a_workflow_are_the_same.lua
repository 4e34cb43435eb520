-- 10.4 In a workflow a future gives a Payload or an Error, and is closed when cancelled.
-- as: workflow
local funcs = require("funcs")

return function()
  local done, failed = funcs.async("lua.support:fn.echo", 7), funcs.async("lua.support:fn.fail",
    { message = "no", kind = "Conflict", retryable = false })
  local value, err = done:result()
  check.is_nil(value)
  check.is_nil(err)
  local payload, ok = done:channel():receive()
  check.is_true(ok)
  check.equal(payload:data(), 7)
  check.closed(done:channel(), "10s")
  local failure, came = failed:response():receive()
  check.is_true(came)
  check.error_is(failure, "Conflict", "^no$", false)
  check.is_true(failed:is_complete())
  local future = funcs.async("lua.support:fn.sleep", "10s")
  check.is_true(future:cancel())
  check.closed(future:channel(), "10s")
  check.is_true(future:is_canceled())
  check.fails("Canceled", "^canceled$", future:result())
end
