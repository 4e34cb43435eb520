-- Payload and Message objects: what crosses unit boundaries, seen from inside (contract sections 8 and 13.5).

local K = ...
local raw = K.raw

local VALUE, FORMAT = K.key("value"), K.key("format")
local TOPIC, FROM, BODIES, COUNT = K.key("topic"), K.key("from"), K.key("bodies"), K.key("count")

local FORMATS = {
  JSON = "json/plain", YAML = "yaml/plain", STRING = "text/plain", BYTES = "application/octet-stream",
  MSGPACK = "application/msgpack", LUA = "lua/any", GOLANG = "golang/any", ERROR = "golang/error",
}

local KNOWN = {}
for _, format in raw.next, FORMATS do
  KNOWN[format] = true
end

local methods = {}
local new_object = K.class("Payload", methods, {
  __tostring = function(p) return "payload{format=" .. p[FORMAT] .. "}" end,
})

--- A Payload around a Lua value.
function K.new_payload(value, format)
  return new_object({ [VALUE] = value, [FORMAT] = format or (K.is_error(value) and FORMATS.ERROR or FORMATS.LUA) })
end

function methods:get_format() return self[FORMAT] end
function methods:data() return self[VALUE] end

--- The value in a Payload.
function K.payload_value(payload)
  return payload[VALUE]
end

function methods:unmarshal()
  local format, value = self[FORMAT], self[VALUE]
  if format == FORMATS.JSON then
    return K.modules.json.decode(value)
  elseif format == FORMATS.MSGPACK then
    local ok, decoded = raw.pcall(K.decode, value)
    if not ok then
      return nil, K.new_error("Internal", "malformed msgpack", false)
    end
    return decoded
  elseif format == FORMATS.YAML then
    local json, problem = K.host.json_of_yaml(value)
    if not json then
      return nil, K.new_error("Internal", problem, false)
    end
    return K.modules.json.decode(json)
  end
  return value
end

function methods:transcode(format)
  if format == self[FORMAT] then
    return self
  end
  local value, err = self:unmarshal()
  if err then
    return nil, err
  end
  if format == FORMATS.LUA or format == FORMATS.GOLANG then
    return K.new_payload(value, format)
  elseif format == FORMATS.JSON then
    local text, failed = K.modules.json.encode(value)
    if failed then
      return nil, failed
    end
    return K.new_payload(text, format)
  elseif format == FORMATS.MSGPACK then
    local bytes, failed = K.encode(value)
    if not bytes then
      return nil, K.new_error("Internal", failed, false)
    end
    return K.new_payload(bytes, format)
  elseif format == FORMATS.YAML then
    local json, failed = K.modules.json.encode(value)
    if failed then
      return nil, failed
    end
    local text, problem = K.host.yaml_of_json(json)
    if not text then
      return nil, K.new_error("Internal", problem, false)
    end
    return K.new_payload(text, format)
  elseif (format == FORMATS.STRING or format == FORMATS.BYTES) and raw.type(value) == "string" then
    return K.new_payload(value, format)
  end
  return nil, K.new_error("Internal", "cannot transcode " .. self[FORMAT] .. " to " .. K.tostring(format), false)
end

local TEXTS = { [FORMATS.JSON] = true, [FORMATS.YAML] = true, [FORMATS.STRING] = true, [FORMATS.BYTES] = true,
  [FORMATS.MSGPACK] = true }

local payload = { format = FORMATS }

--- A Payload of a Lua value; with a format, of a text that is in that format already.
function payload.new(value, format)
  if format ~= nil and not KNOWN[format] then
    K.raise("bad argument #2 to 'payload.new' (one of payload.format expected, got " .. K.tostring(format) .. ")")
  elseif TEXTS[format] and raw.type(value) ~= "string" then
    K.raise("bad argument #1 to 'payload.new' (a text in format " .. format .. " expected, got " .. K.type(value) .. ")")
  end
  return K.new_payload(value, format)
end

K.modules.payload = payload

-- Messages ---------------------------------------------------------------------------------------------------

-- On the wire one body is the value itself; none or several are extension type 2 around their array.
local EXT_BODIES = 2

--- Encode the bodies of a message (n of them, nil allowed). Returns bytes, or nil and a text.
function K.encode_bodies(n, ...)
  if n == 1 then
    return K.encode_payload((...))
  end
  local list, err = K.encode_list(n, ...)
  if not list then
    return nil, err
  end
  return "\xC1\xC9" .. raw.string.pack(">I4B", #list, EXT_BODIES) .. list
end

--- Decode the bodies of a message: count and list.
function K.decode_bodies(payload)
  if raw.string.byte(payload, 2) == 0xC9 then
    local length, ext, pos = raw.string.unpack(">I4B", payload, 3)
    if ext == EXT_BODIES and pos + length - 1 == #payload then
      -- Not K.decode: nil bodies would be lost from the count.
      return K.decode_list(payload, pos)
    end
  end
  return 1, { K.decode_payload(payload) }
end

local message_methods = {}

function message_methods:topic() return self[TOPIC] end
function message_methods:from() return self[FROM] end

function message_methods:payload()
  local n, bodies = self[COUNT], self[BODIES]
  if n == 0 then
    return nil
  elseif n == 1 then
    return K.new_payload(bodies[1])
  end
  local payloads = {}
  for i = 1, n do
    payloads[i] = K.new_payload(bodies[i])
  end
  return payloads
end

-- `msg.approved` reads through to the payload's fields.
local new_message = K.class("Message", message_methods, {
  __index = function(self, key)
    local method = message_methods[key]
    if method then
      return method
    end
    local body = self[BODIES][1]
    if raw.type(body) == "table" and not K.class_of(body) then
      return body[key]
    end
    return nil
  end,
  __tostring = function(m) return "message{topic=" .. m[TOPIC] .. "}" end,
})

--- A Message object from its parts.
function K.new_message(topic, from, count, bodies)
  return new_message({ [TOPIC] = topic, [FROM] = from, [COUNT] = count, [BODIES] = bodies })
end

--- What `listen` without options delivers: nil, the value, or a list of values.
function K.message_value(message)
  local n = message[COUNT]
  if n == 0 then
    return nil
  elseif n == 1 then
    return message[BODIES][1]
  end
  return message[BODIES]
end

--- Whether a value is a Message.
function K.is_message(v)
  return K.class_of(v) == "Message"
end

--- What a reader of a plain listener's channel gets. What somebody else has put into that channel stays as it is.
function K.plain_message(v)
  if K.is_message(v) then
    return K.message_value(v)
  end
  return v
end

--- A message's topic, sender and bodies, for whoever hands it on unread.
function K.message_parts(message)
  return message[TOPIC], message[FROM], message[COUNT], message[BODIES]
end
