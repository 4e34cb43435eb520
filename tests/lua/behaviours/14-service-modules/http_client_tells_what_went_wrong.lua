-- 14 `http_client`: bad arguments are `Invalid`; what brought no answer is `Unavailable`.
local http, env = require("http_client"), require("env")

return function()
  check.fails(errors.INVALID, nil, http.get(""))
  check.fails(errors.INVALID, nil, http.get("no url"))
  check.fails(errors.INVALID, nil, http.get("ftp://127.0.0.1/x"))
  check.fails(errors.INVALID, nil, http.request("", "http://127.0.0.1/"))
  check.fails(errors.INVALID, "wrong", http.get("http://127.0.0.1/", { wrong = 1 }))
  check.fails(errors.INVALID, nil, http.post("http://127.0.0.1/", { body = "x", json = { 1 } }))
  check.fails(errors.INVALID, nil, http.get("http://127.0.0.1/", { timeout = -1 }))
  check.fails(errors.UNAVAILABLE, nil, http.get("http://127.0.0.1:1/"))
  check.fails(errors.UNAVAILABLE, nil, http.get(env.get("LUA_SUITE_WEB_SERVER") .. "/hangup"))
  check.fails(errors.INVALID, nil, http.get(env.get("LUA_SUITE_WEB_SERVER") .. "/bytes?100", { max_response_body = 99 }))
end
