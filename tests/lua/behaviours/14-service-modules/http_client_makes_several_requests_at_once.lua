-- 14 `http_client.request_batch`: responses and errors under the numbers of their requests.
local http, env = require("http_client"), require("env")

return function()
  local url = env.get("LUA_SUITE_WEB_SERVER")
  local responses, failed = http.request_batch{ { "GET", url .. "/echo" }, { "GET", url .. "/gone" } }
  check.equal({ responses[1].status_code, responses[2].status_code }, { 200, 410 })
  check.is_nil(failed)
  responses, failed = http.request_batch{ { "GET", "http://127.0.0.1:1/" }, { "POST", url .. "/echo", { body = "x" } } }
  check.is_nil(responses[1])
  check.equal(responses[2].status_code, 200)
  check.error_is(failed[1], errors.UNAVAILABLE)
  check.is_nil(failed[2])
  check.fails(errors.INVALID, nil, http.request_batch{})
end
