-- 13.1 `json.decode`: bad text → `Internal`.
local json = require("json")

return function()
  for _, text in ipairs{ "{", "[1,]", "nul", "{a:1}", "'x'", "1 2", "01", '"\\x"', '{"a" 1}', " " } do
    local value, err = json.decode(text)
    check.is_nil(value, text)
    check.error_is(err, errors.INTERNAL)
  end
end
