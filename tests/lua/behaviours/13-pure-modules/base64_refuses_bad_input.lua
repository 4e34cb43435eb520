-- 13.4 `base64.decode`: bad input → `nil, Invalid`, text contains `illegal base64 data`.
local base64 = require("base64")

return function()
  for _, text in ipairs{ "Zg", "Zg=", "Z", "Zm9v!", "Zm 9v", "-_-_", "=Zg=", "Zg==Zg==" } do
    check.fails(errors.INVALID, "illegal base64 data", base64.decode(text))
  end
end
