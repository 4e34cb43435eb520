-- 12.2 `format(s, "standard" | "simple" | "urn")`, default standard; unknown form → `Invalid`.
local uuid = require("uuid")
local ID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"

return function()
  check.equal(uuid.format(ID), ID)
  check.equal(uuid.format(ID, "standard"), ID)
  check.equal(uuid.format(ID, "simple"), "6ba7b8109dad11d180b400c04fd430c8")
  check.equal(uuid.format(ID, "urn"), "urn:uuid:" .. ID)
  check.fails(errors.INVALID, nil, uuid.format(ID, "braces"))
  check.fails(errors.INVALID, nil, uuid.format("x", "simple"))
end
