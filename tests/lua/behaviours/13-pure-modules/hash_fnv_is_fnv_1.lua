-- 13.4 `hash.fnv32(data)`, `hash.fnv64(data)` → number (FNV-1, not 1a).
local hash = require("hash")

return function()
  check.equal(hash.fnv32(""), 2166136261)
  check.equal(hash.fnv32("a"), 84696446)
  check.equal(hash.fnv32("hello"), 3069866343)
  check.equal(hash.fnv64("hello"), 8883723591023973575)
  check.equal(hash.fnv64("foobar"), 3750802935296928194)
  check.type_is(hash.fnv64("a"), "number")
end
