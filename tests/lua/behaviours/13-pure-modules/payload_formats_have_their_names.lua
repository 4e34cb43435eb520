-- 13.5 `payload.format`.
return function()
  local F = payload.format
  check.equal(F.JSON, "json/plain")
  check.equal(F.YAML, "yaml/plain")
  check.equal(F.STRING, "text/plain")
  check.equal(F.BYTES, "application/octet-stream")
  check.equal(F.MSGPACK, "application/msgpack")
  check.equal(F.LUA, "lua/any")
  check.equal(F.GOLANG, "golang/any")
  check.equal(F.ERROR, "golang/error")
end
