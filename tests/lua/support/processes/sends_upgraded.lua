-- Code to upgrade to: tells the owner what it finds, then collects `count` messages and returns their bodies.
return { main = function(owner, count, extra)
  process.send(owner, "upgraded", {
    id = process.id(), pid = process.pid(), extra = extra, leftover = rawget(_G, "leftover"),
  })
  local bodies, inbox = {}, process.inbox()
  for i = 1, count do bodies[i] = inbox:receive():payload():data() end
  return bodies
end }
