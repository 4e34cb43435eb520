-- The module `io` (contract section 14.2): the standard streams of the process that the node is.
--
-- What is written is handed to the node in order and leaves in that order; a call returns when the node has taken it,
-- which is at once unless whoever reads the stream is slow. Input and arguments belong to the process that `mesh run -x`
-- runs on a terminal host. The Python half is `node.modules.io`.

local K = ...
local raw = K.raw
local concat, select = raw.table.concat, raw.select

local BYTES_READ <const> = 1024

local function texts(...)
  local parts = { ... }
  for i = 1, select("#", ...) do
    parts[i] = K.tostring(parts[i])
  end
  return parts, select("#", ...)
end

local function line(...)
  local parts, n = texts(...)
  return concat(parts, "\t", 1, n) .. "\n"
end

local M = {}

function M.print(...) return K.ask("io.write", "stdout", line(...)) end
function M.eprint(...) return K.ask("io.write", "stderr", line(...)) end

function M.write(...)
  local parts, n = texts(...)
  return K.ask("io.write", "stdout", concat(parts, "", 1, n))
end

function M.flush() return K.ask("io.flush") end

--- The next line without its end; nil and an Error of kind NotFound at the end of the input.
function M.readline() return K.ask("io.readline") end

--- Up to n bytes, as soon as there are some.
function M.read(n)
  if n == nil then
    n = BYTES_READ
  end
  local count = raw.math.tointeger(n)
  if not count then
    return K.invalid("io.read takes a number of bytes, got " .. K.tostring(n) .. "; a line is read by io.readline")
  end
  return K.ask("io.read", count)
end

--- What stands after the entry on the command line: a list of texts, empty for whatever was not started there.
function M.args() return K.ask("io.args") end

K.modules.io = M
