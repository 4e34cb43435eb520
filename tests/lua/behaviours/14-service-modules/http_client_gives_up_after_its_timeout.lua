-- 14 `http_client`: option `timeout`: seconds, a duration text or a Duration; then an Error of kind `Timeout`.
local http, time, env = require("http_client"), require("time"), require("env")

return function()
  local url = env.get("LUA_SUITE_WEB_SERVER") .. "/slow"
  for _, timeout in ipairs{ 0.02, "20ms", time.parse_duration("20ms") } do
    local response, err = http.get(url, { timeout = timeout })
    check.is_nil(response)
    check.error_is(err, errors.TIMEOUT, nil, true)
  end
end
