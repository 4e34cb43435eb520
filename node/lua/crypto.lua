-- The module `crypto` (contract section 13.3): random values, keyed digests, ciphers, tokens, derived keys.
--
-- Responsible for: checking arguments and where randomness comes from. Not responsible for: the algorithms, which are
-- the host's (`node.machine.crypto`), pure functions that answer the value, or nil, a kind and a text.
--
-- Randomness of a workflow is drawn from its recorded seed through a hash, so that a replay draws the same and nobody
-- who sees one value can compute another; that of every other unit is the system's.

local K = ...
local raw = K.raw
local sformat, tointeger, type = raw.string.format, raw.math.tointeger, raw.type

local RANDOM_MAX <const> = 1048576 -- bytes or characters of one call, contract
local CHARSET_MAX <const> = 256 -- one byte chooses a character
local ITERATIONS_MAX <const> = 10000000 -- contract
local DERIVED_BYTES_MAX <const> = 1024 -- no cipher's key is near it; work grows with every 32 or 64 bytes
local LETTERS_AND_DIGITS <const> = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
local NONCE_BYTES <const> = 12

local function invalid(what, text, ...)
  return K.invalid("crypto." .. what .. ": " .. sformat(text, ...))
end

--- nil, or nil and the Error: the names and values of arguments that must be strings, in turn.
local function check_strings(what, ...)
  local given = { ... }
  for i = 1, raw.select("#", ...), 2 do
    if type(given[i + 1]) ~= "string" then
      return invalid(what, "the %s must be a string, got %s", given[i], K.type(given[i + 1]))
    end
  end
end

--- The host's answer as the module's.
local function answer(what, value, kind, problem)
  if value == nil then
    return nil, K.new_error(kind, "crypto." .. what .. ": " .. problem, false)
  end
  return value, nil
end

-- Randomness.

--- What the next random value of the running unit is computed from: a seed and a number, together never used twice.
local function draw()
  local unit = K.current
  if not unit.deterministic then
    return K.entropy(32), 0
  end
  unit.crypto_draws = (unit.crypto_draws or 0) + 1
  return unit.seed, unit.crypto_draws
end

local function random_bytes(n)
  local seed, number = draw()
  return K.host.random_bytes(seed, number, n)
end

local function check_count(what, n)
  local count = raw.math.type(n) and tointeger(n)
  if not count or count < 1 or count > RANDOM_MAX then
    return invalid(what, "the length must be an integer from 1 to %d", RANDOM_MAX)
  end
  return count
end

local random = {}

function random.bytes(n)
  local count, err = check_count("random.bytes", n)
  if not count then
    return nil, err
  end
  return random_bytes(count), nil
end

--- n characters, each of the charset's equally likely.
function random.string(n, charset)
  local count, err = check_count("random.string", n)
  if not count then
    return nil, err
  elseif charset == nil then
    charset = LETTERS_AND_DIGITS
  elseif type(charset) ~= "string" or charset == "" then
    return invalid("random.string", "the charset must be a non-empty string")
  end
  if (raw.utf8.len(charset) or #charset) > CHARSET_MAX then
    return invalid("random.string", "the charset has more than %d characters", CHARSET_MAX)
  end
  local seed, number = draw()
  return K.host.random_text(seed, number, count, charset), nil
end

function random.uuid()
  return K.modules.uuid.v4()
end

-- Keyed digests.

local hmac = {}

for _, name in raw.ipairs({ "sha256", "sha512" }) do
  local what = "hmac." .. name
  hmac[name] = function(key, data)
    local _, err = check_strings(what, "key", key, "data", data)
    if err then
      return nil, err
    elseif key == "" then
      return invalid(what, "the key is empty")
    end
    return K.hex(K.host.hmac(name, key, data)), nil
  end
end

-- Ciphers: the nonce in front of what it protects.

local CIPHERS = { aes = { [16] = true, [24] = true, [32] = true }, chacha20 = { [32] = true } }
local KEYS = { aes = "16, 24 or 32", chacha20 = "32" }

local encrypt, decrypt = {}, {}

local function check_cipher(what, cipher, data, key, aad)
  local _, err = check_strings(what, "data", data, "key", key, "aad", aad)
  if err then
    return nil, err
  elseif not CIPHERS[cipher][#key] then
    return invalid(what, "the key must have %s bytes, it has %d", KEYS[cipher], #key)
  end
end

for cipher in raw.next, CIPHERS do
  encrypt[cipher] = function(data, key, aad)
    local what = "encrypt." .. cipher
    aad = aad == nil and "" or aad
    local _, err = check_cipher(what, cipher, data, key, aad)
    if err then
      return nil, err
    end
    return answer(what, K.host.encrypt(cipher, key, random_bytes(NONCE_BYTES), data, aad))
  end

  decrypt[cipher] = function(data, key, aad)
    local what = "decrypt." .. cipher
    aad = aad == nil and "" or aad
    local _, err = check_cipher(what, cipher, data, key, aad)
    if err then
      return nil, err
    end
    return answer(what, K.host.decrypt(cipher, key, data, aad))
  end
end

-- Tokens.

local jwt = {}

local ALGORITHMS = { HS256 = true, HS384 = true, HS512 = true, RS256 = true }

local function check_algorithm(what, alg)
  if alg == nil then
    return "HS256"
  elseif not ALGORITHMS[alg] then
    return invalid(what, "the algorithm must be HS256, HS384, HS512 or RS256, got %s", K.tostring(alg))
  end
  return alg
end

--- JSON text of a table as an object; an empty one would be written as a list.
local function object_json(what, name, fields)
  if raw.next(fields) == nil then
    return "{}"
  end
  local text, err = K.modules.json.encode(fields)
  if not text then
    return invalid(what, "%s: %s", name, err:message())
  elseif raw.string.byte(text) ~= 123 then
    return invalid(what, "%s must be a table with named fields, got a list", name)
  end
  return text
end

--- A signed token of the claims; `_header` among them gives more fields of its header.
function jwt.encode(claims, key, alg)
  local what = "jwt.encode"
  local algorithm, err = check_algorithm(what, alg)
  if not algorithm then
    return nil, err
  elseif K.type(claims) ~= "table" then
    return invalid(what, "the claims must be a table, got %s", K.type(claims))
  elseif type(key) ~= "string" or key == "" then
    return invalid(what, "the key must be a non-empty string")
  end
  local fields, header = {}, {}
  for name, value in raw.next, claims do
    if name == "_header" then
      header = value
    else
      fields[name] = value
    end
  end
  if K.type(header) ~= "table" then
    return invalid(what, "_header must be a table, got %s", K.type(header))
  end
  local claims_json, header_json
  claims_json, err = object_json(what, "the claims", fields)
  if not claims_json then
    return nil, err
  end
  header_json, err = object_json(what, "_header", header)
  if not header_json then
    return nil, err
  end
  return answer(what, K.host.jwt_encode(claims_json, key, algorithm, header_json))
end

--- The claims of a token whose signature, algorithm and times (`exp`, `nbf`) are right now.
function jwt.verify(token, key, alg, require_exp)
  local what = "jwt.verify"
  local algorithm, err = check_algorithm(what, alg)
  if not algorithm then
    return nil, err
  elseif type(token) ~= "string" or token == "" then
    return invalid(what, "the token must be a non-empty string")
  elseif type(key) ~= "string" or key == "" then
    return invalid(what, "the key must be a non-empty string")
  end
  local claims_json, failed = answer(what, K.host.jwt_verify(token, key, algorithm, require_exp ~= false, K.now()))
  if not claims_json then
    return nil, failed
  end
  return K.modules.json.decode(claims_json)
end

-- Derived keys.

local crypto = {
  random = random, hmac = hmac, encrypt = encrypt, decrypt = decrypt, jwt = jwt,
}

local DIGEST_BYTES = { sha256 = 32, sha512 = 64 }

--- A key of `length` bytes. It takes long by design: in a live unit a thread of the node computes it while others run.
function crypto.pbkdf2(password, salt, iterations, length, digest)
  local what = "pbkdf2"
  digest = digest == nil and "sha256" or digest
  local _, err = check_strings(what, "password", password, "salt", salt)
  local rounds = raw.math.type(iterations) and tointeger(iterations)
  local bytes = raw.math.type(length) and tointeger(length)
  if err then
    return nil, err
  elseif password == "" or salt == "" then
    return invalid(what, "password and salt must not be empty")
  elseif not rounds or rounds < 1 or rounds > ITERATIONS_MAX then
    return invalid(what, "iterations must be an integer from 1 to %d", ITERATIONS_MAX)
  elseif not bytes or bytes < 1 or bytes > DERIVED_BYTES_MAX then
    return invalid(what, "the length must be an integer from 1 to %d", DERIVED_BYTES_MAX)
  elseif not DIGEST_BYTES[digest] then
    return invalid(what, "the digest must be sha256 or sha512, got %s", K.tostring(digest))
  elseif not K.current.deterministic then
    return K.ask("crypto.pbkdf2", password, salt, rounds, bytes, digest)
  end
  -- A workflow computes in its step, and each further block costs all iterations again.
  local blocks = (bytes + DIGEST_BYTES[digest] - 1) // DIGEST_BYTES[digest]
  if rounds * blocks > ITERATIONS_MAX then
    return invalid(what, "%d bytes take %d times the iterations, more than %d in a workflow; derive the key in a function",
      bytes, blocks, ITERATIONS_MAX)
  end
  return K.host.pbkdf2(digest, password, salt, rounds, bytes), nil
end

--- Whether two strings are equal, in a time that does not tell where they differ.
function crypto.constant_time_compare(a, b)
  local _, err = check_strings("constant_time_compare", "first value", a, "second value", b)
  if err then
    return nil, err
  end
  return K.host.same(a, b)
end

K.modules.crypto = crypto
