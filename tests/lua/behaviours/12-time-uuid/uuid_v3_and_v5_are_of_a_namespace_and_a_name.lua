-- 12.2 `v3(ns_uuid, name)`, `v5(ns_uuid, name)` → the same string for the same arguments.
local uuid = require("uuid")
local DNS = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"

return function()
  check.equal(uuid.v3(DNS, "python.org"), "6fa459ea-ee8a-3ca4-894e-db77e160355e")
  check.equal(uuid.v5(DNS, "python.org"), "886313e1-3b8a-5372-9b90-0c9aee199e5d")
  check.is_true(uuid.v5(DNS, "a") ~= uuid.v5(DNS, "b"))
end
