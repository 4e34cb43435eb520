-- Functions of one line or so.
local M = {}

--- The first argument.
function M.echo(value)
  return value
end

--- All arguments as {n =, ...}.
function M.pack(...)
  return table.pack(...)
end

--- `nil, Error` of these fields.
function M.fails(fields)
  return nil, errors.new(fields)
end

--- Raises a text, or an Error of these fields.
function M.raises(what)
  error(type(what) == "table" and errors.new(what) or what)
end

--- The PID of the call.
function M.pid()
  return process.pid()
end

--- Sends the rest to a unit under a topic.
function M.tell(to, topic, ...)
  return process.send(to, topic, ...)
end

--- Two results by name, for rules about what a second one means.
function M.returns(what)
  if what == "text" then return 1, "went wrong" end
  if what == "error" then
    return 1, errors.new{ message = "no stock", kind = errors.CONFLICT, retryable = true, details = { sku = "x1" } }
  end
  if what == "nil" then return 1, nil end
  if what == "table" then return 1, { "not", "an", "error" } end
  if what == "number" then return 1, 2 end
  if what == "false" then return 1, false end
  if what == "unknown kind" then return nil, errors.new("who knows") end
end

return M
