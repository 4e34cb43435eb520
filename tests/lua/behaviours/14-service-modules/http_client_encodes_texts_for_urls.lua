-- 14 `http_client.encode_uri`, `decode_uri`.
local http = require("http_client")

return function()
  check.equal(http.encode_uri("a b&c=é/~"), "a%20b%26c%3D%C3%A9%2F~")
  check.equal(http.decode_uri("a%20b%26c%3D%C3%A9%2F~"), "a b&c=é/~")
  check.fails(errors.INVALID, nil, http.encode_uri(5))
  check.fails(errors.INVALID, nil, http.decode_uri({}))
end
