-- A puppet does what messages tell it: the topic names a function of `process` or of `process.registry`, the body lists
-- the arguments; what it gave goes back to the sender as "answer". Two topics end it: "return" and "fail", with what.
-- Of every lifecycle event it tells its owner, as "event". See puppets.lua.
--   owner   a PID
--   way     {deaf = never calls events(), trap = traps links, shows = tells the owner its PID as "here"}
local function main(owner, way)
  way = way or {}
  if way.trap then process.set_options{ trap_links = true } end
  if way.shows then process.send(owner, "here", process.pid()) end
  local inbox = process.inbox()
  local cases = { inbox:case_receive() }
  if not way.deaf then cases[2] = process.events():case_receive() end
  while true do
    local r = channel.select(cases)
    if r.channel ~= inbox then
      process.send(owner, "event", r.value)
    else
      local message = r.value
      local verb, args = message:topic(), message:payload():data()
      if verb == "return" then
        return args[1]
      elseif verb == "fail" then
        error(args[1], 0)
      elseif verb == "upgrade_to_the_same" then
        process.upgrade(nil, table.unpack(args))
      end
      local value, err = (process[verb] or process.registry[verb])(table.unpack(args))
      process.send(message:from(), "answer", { value = value, err = err })
    end
  end
end

return { main = main }
