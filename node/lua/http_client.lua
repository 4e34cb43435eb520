-- `http_client`: requests to the web. Here are the checks of arguments that need no network; the requests themselves are
-- made by `node.modules.http_client`.

local K = ...
local raw = K.raw

local METHODS = { "get", "post", "put", "patch", "delete", "head" }
local OPTIONS = {
  headers = "table", query = "table", form = "table", cookies = "table", auth = "table", body = "string", json = "any",
  timeout = "any", max_response_body = "number", follow_redirects = "boolean",
}

local function option_names()
  local names = {}
  for name in raw.next, OPTIONS do
    names[#names + 1] = name
  end
  raw.table.sort(names)
  return raw.table.concat(names, ", ")
end

-- The options as they are sent, or nil and an Error. The body is one text by then, whichever way it was given.
local function checked(options)
  if options == nil then
    return {}
  elseif K.type(options) ~= "table" then
    return K.invalid("options must be a table, not a " .. K.type(options))
  end
  local sent, bodies = {}, 0
  for name, value in K.ordered_pairs(options) do
    local want = OPTIONS[name]
    if want == nil then
      return K.invalid("option " .. K.tostring(name) .. " is not supported; there are " .. option_names())
    elseif want ~= "any" and K.type(value) ~= want then
      return K.invalid("option " .. name .. " must be a " .. want .. ", not a " .. K.type(value))
    end
    if name == "body" or name == "json" or name == "form" then
      bodies = bodies + 1
    end
    sent[name] = value
  end
  if bodies > 1 then
    return K.invalid("only one of the options body, json and form can be the body of a request")
  end
  if sent.json ~= nil then
    local text, err = K.modules.json.encode(sent.json)
    if err then
      return nil, err
    end
    sent.json = text
  end
  if K.class_of(sent.timeout) == "Duration" then
    sent.timeout = K.tostring(sent.timeout)
  end
  return sent
end

-- Method, URL and options of one request, or nil and an Error.
local function checked_request(method, url, options)
  if raw.type(method) ~= "string" or method == "" then
    return K.invalid("a method such as GET is required")
  elseif raw.type(url) ~= "string" or url == "" then
    return K.invalid("a URL is required")
  end
  local sent, err = checked(options)
  if not sent then
    return nil, err
  end
  return { raw.string.upper(method), url, sent }
end

local function request(method, url, options)
  local wish, err = checked_request(method, url, options)
  if not wish then
    return nil, err
  end
  return K.ask("http_client.request", wish[1], wish[2], wish[3])
end

local M = { request = request }

for _, method in raw.ipairs(METHODS) do
  M[method] = function(url, options)
    return request(method, url, options)
  end
end

--- Several requests at once. Returns the responses and, if any failed, the errors, both under the number of the request.
function M.request_batch(requests)
  if K.type(requests) ~= "table" or #requests == 0 then
    return K.invalid("a list of requests is required: {method, url, options} each")
  end
  local responses, errors, failed = {}, {}, false
  local wishes, places = {}, {}
  for i = 1, #requests do
    local given = requests[i]
    local wish, err
    if K.type(given) == "table" then
      wish, err = checked_request(given.method or given[1], given.url or given[2], given.options or given[3])
    else
      err = K.new_error("Invalid", "request " .. i .. " must be a table, not a " .. K.type(given), false)
    end
    if wish then
      wishes[#wishes + 1], places[#places + 1] = wish, i
    else
      errors[i], failed = err, true
    end
  end
  if #wishes > 0 then
    local answers, err = K.ask("http_client.batch", wishes)
    if not answers then
      return nil, err
    end
    for at, place in raw.ipairs(places) do
      local answer = answers[at]
      if K.is_error(answer) then
        errors[place], failed = answer, true
      else
        responses[place] = answer
      end
    end
  end
  return responses, failed and errors or nil
end

-- Of what RFC 3986 calls unreserved.
function M.encode_uri(text)
  if raw.type(text) ~= "string" then
    return K.invalid("a text is required, not a " .. K.type(text))
  end
  return (raw.string.gsub(text, "[^A-Za-z0-9_.~-]", function(c)
    return raw.string.format("%%%02X", raw.string.byte(c))
  end))
end

function M.decode_uri(text)
  if raw.type(text) ~= "string" then
    return K.invalid("a text is required, not a " .. K.type(text))
  end
  return (raw.string.gsub(text, "%%(%x%x)", function(digits)
    return raw.string.char(raw.tonumber(digits, 16))
  end))
end

K.modules.http_client = M
