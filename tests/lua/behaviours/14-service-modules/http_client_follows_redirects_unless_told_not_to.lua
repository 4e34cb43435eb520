-- 14 `http_client`: option `follow_redirects`.
local http, env = require("http_client"), require("env")

return function()
  local url = env.get("LUA_SUITE_WEB_SERVER")
  local followed = assert(http.get(url .. "/moved"))
  check.equal(followed.status_code, 200)
  check.equal(followed.url, url .. "/echo")
  check.equal(http.get(url .. "/moved", { follow_redirects = false }).status_code, 302)
  check.is_nil((http.get(url .. "/loop")))
end
