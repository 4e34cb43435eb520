-- 14 `http_client`: options `body`, `json`, `form`, `auth`, `cookies`.
local http, json, base64, env = require("http_client"), require("json"), require("base64"), require("env")

return function()
  local url = env.get("LUA_SUITE_WEB_SERVER") .. "/echo"
  local function told(options) return json.decode(assert(http.post(url, options)).body) end
  check.equal(told{ body = "plain" }.body, "plain")
  local as_json = told{ json = { a = 1 } }
  check.equal(as_json.body, '{"a":1}')
  check.equal(as_json.headers["content-type"], "application/json")
  local form = told{ form = { a = "x y" } }
  check.equal(form.body, "a=x+y")
  check.equal(form.headers["content-type"], "application/x-www-form-urlencoded")
  check.equal(told{ auth = { user = "u", pass = "p" } }.headers.authorization, "Basic " .. base64.encode("u:p"))
  check.equal(told{ cookies = { session = "abc" } }.headers.cookie, "session=abc")
  check.equal(http.get(env.get("LUA_SUITE_WEB_SERVER") .. "/cookie").cookies.session, "abc")
end
