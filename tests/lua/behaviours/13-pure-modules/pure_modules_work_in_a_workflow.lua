-- 11.1 `hash`, `base64` and `payload` may be used in a workflow, and give the same in every replay.
-- as: workflow
local hash, base64, time = require("hash"), require("base64"), require("time")

return function()
  local before = { hash.sha256("a"), base64.encode("a"), payload.new({ 1 }):transcode(payload.format.YAML):data() }
  time.sleep("5ms")
  check.equal(before, { hash.sha256("a"), "YQ==", payload.new({ 1 }):transcode(payload.format.YAML):data() })
end
