-- Errors in the user's words: `K.blame`, `K.blame_thread`.
--
-- Kernel chunks are named "=[name]". A text raised in one of them begins with its name and line, which mean nothing to
-- people who write workflows: here they are replaced by the place in the user's own file that called the library.
--
-- Names: in all kernel files `raw_x` is the C function x. What C says is wrong with an argument names the variable it
-- was called by, so "bad argument #1 to 'raw_rep'" becomes "... to 'rep'" here.

local K = ...
local raw = K.raw

local raw_type, raw_tostring = raw.type, raw.tostring
local getinfo, running = raw.debug.getinfo, raw.coroutine.running
local raw_match, raw_gsub = raw.string.match, raw.string.gsub

local function reworded(message, level_of)
  local rest = raw_match(message, "^%[[%l_]+%]:%d+: (.*)$")
  if not rest then
    return message
  end
  rest = raw_gsub(rest, "'raw_(%w+)'", "'%1'")
  -- `..` is a function of the kernel's (budget.lua), whose names of what it joins mean nothing to anybody.
  rest = raw_gsub(rest, "^(attempt to concatenate a %a+ value) %(local '[ab]'%)$", "%1")
  local place = level_of()
  return place and place .. rest or rest
end

local function place_of(info)
  return raw.string.byte(info.source) == 64 and info.currentline > 0 -- "@": a user's file
    and info.short_src .. ":" .. raw_tostring(info.currentline) .. ": "
end

--- The error that ended coroutine `co`: a text raised inside the kernel gets the position of the user code that called it.
function K.blame_thread(co, message)
  if raw_type(message) ~= "string" then
    return message
  end
  return reworded(message, function()
    for level = 0, 200 do
      local info = getinfo(co, level, "Sl")
      local place = info and place_of(info)
      if place or not info then
        return place
      end
    end
    return nil
  end)
end

--- The same as a message handler, while the code that raised it still stands.
function K.blame(message) return K.blame_thread(running(), message) end
