-- 13.5 `transcode(format)` → Payload; `unmarshal()` gives the value again.
local json = require("json")

return function()
  local value = { name = "x", list = { 1, 2.5, true } }
  local p = payload.new(value)
  local as_json = assert(p:transcode(payload.format.JSON))
  check.equal(as_json:get_format(), "json/plain")
  check.equal(json.decode(as_json:data()), value)
  for _, format in ipairs{ "JSON", "YAML", "MSGPACK", "LUA" } do
    local coded = assert(p:transcode(payload.format[format]))
    check.equal(coded:get_format(), payload.format[format])
    check.equal(coded:unmarshal(), value, format)
    check.equal(assert(coded:transcode(payload.format.LUA)):data(), value, format)
  end
  check.equal(assert(as_json:transcode(payload.format.YAML)):unmarshal(), value)
end
