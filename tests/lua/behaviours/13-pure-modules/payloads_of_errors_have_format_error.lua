-- 13.5 Errors have format ERROR.
return function()
  local err = errors.new{ message = "sold out", kind = "Conflict" }
  local p = payload.new(err)
  check.equal(p:get_format(), payload.format.ERROR)
  check.error_is(p:data(), "Conflict", "sold out")
  check.equal(tostring(p), "payload{format=golang/error}")
end
