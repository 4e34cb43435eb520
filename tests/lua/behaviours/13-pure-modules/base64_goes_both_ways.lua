-- 13.4 `base64.encode(s)`, `base64.decode(s)`: standard alphabet with padding; binary safe.
local base64 = require("base64")

return function()
  for plain, coded in pairs{
    [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=", foobar = "Zm9vYmFy",
    ["\xFB\xFF\xFE"] = "+//+", ["\0\0"] = "AAA=",
  } do
    check.equal(base64.encode(plain), coded)
    check.equal(base64.decode(coded), plain)
  end
  local all = {}
  for i = 0, 255 do all[i + 1] = string.char(i) end
  all = table.concat(all)
  check.equal(base64.decode(base64.encode(all)), all)
end
