-- Links itself to a PID, says so to somebody (topic "linked") and waits; with `die` it fails instead of waiting.
local time = require("time")
return { main = function(pid, to, die)
  local ok, err = process.link(pid)
  if err then return nil, err end
  if to then process.send(to, "linked", process.pid()) end
  if die then error("died") end
  time.sleep("10s")
  return "survived"
end }
