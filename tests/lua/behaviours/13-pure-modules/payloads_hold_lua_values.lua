-- 13.5 `payload.new(v)` → Payload; Lua values have format LUA.
return function()
  local value = { a = { 1 } }
  local p = payload.new(value)
  check.type_is(p, "userdata")
  check.equal(p:get_format(), payload.format.LUA)
  check.equal(p:data(), value)
  check.equal(p:unmarshal(), value)
  check.equal(tostring(p), "payload{format=lua/any}")
  check.equal(payload.new("text"):get_format(), "lua/any")
  check.is_nil(payload.new(nil):data())
end
