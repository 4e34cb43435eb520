-- 14 `http_client`: `get post put patch delete head request`.
local http, json, env = require("http_client"), require("json"), require("env")

return function()
  local url = env.get("LUA_SUITE_WEB_SERVER") .. "/echo"
  for _, method in ipairs{ "get", "post", "put", "patch", "delete" } do
    check.equal(json.decode(assert(http[method](url)).body).method, method:upper())
  end
  check.equal(json.decode(assert(http.request("options", url)).body).method, "OPTIONS")
  local head = assert(http.head(url))
  check.equal(head.status_code, 200)
  check.equal(head.body, "")
end
