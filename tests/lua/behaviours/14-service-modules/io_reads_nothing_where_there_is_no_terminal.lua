-- 14.2 With a terminal host only: `io.readline()`, `io.read([n=1024])` → `nil, err`; `io.args()` → list of strings.
local io = require("io")

return function()
  local line, err = io.readline()
  check.is_nil(line)
  check.type_is(err, "userdata")
  local bytes
  bytes, err = io.read()
  check.is_nil(bytes)
  check.type_is(err, "userdata")
  check.is_nil((io.read(16)))
  check.equal(io.args(), {})
end
