-- Counts its starts under `key` in lua.support:service_starts, and ends: as `how` says.
local store = require("store")

return { main = function(key, how)
  local starts = store.get("lua.support:service_starts")
  local count = (starts:get(key) or 0) + 1
  starts:set(key, count)
  if how == "returns" then
    return "done"
  elseif how == "fails" then
    error("start " .. count .. " of " .. key)
  elseif how == "fails_for_good" then
    return nil, errors.new{ message = "of no use", kind = errors.UNAVAILABLE, retryable = false }
  elseif how == "is_cancelled" then
    return nil, errors.new{ message = "somebody has cancelled it", kind = errors.CANCELED }
  elseif how == "recovers" and count < 4 then
    return nil, errors.new{ message = "not yet", kind = errors.UNAVAILABLE, retryable = true }
  end
end }
