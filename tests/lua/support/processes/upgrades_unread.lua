-- Has listeners and an inbox that it does not read, and upgrades to other code on "go".
--   to    the entry
--   ...   its arguments
return { main = function(to, ...)
  process.inbox()
  process.listen("plain")
  process.listen("message", { message = true })
  process.listen("go"):receive()
  process.upgrade(to, ...)
end }
