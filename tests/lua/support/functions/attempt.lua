-- Counts its attempts under `key` and fails the first `fails` times: with an Error of the specification `with`, or by
-- raising that text. Gives the number of the attempt. `nap`: how long each takes.
local time, store = require("time"), require("store")
return { main = function(spec)
  local counts = store.get("lua.support:fn.counts")
  local attempt = (counts:get(spec.key) or 0) + 1
  counts:set(spec.key, attempt)
  if spec.nap then time.sleep(spec.nap) end
  if attempt > spec.fails then return attempt end
  if type(spec.with) == "string" then error(spec.with) end
  return nil, errors.new(spec.with)
end }
