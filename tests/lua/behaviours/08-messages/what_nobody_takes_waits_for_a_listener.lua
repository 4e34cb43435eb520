-- 8 Else it waits until a listener of its topic or the inbox exists; without an inbox other topics lose nothing.
return function()
  process.send(process.pid(), "later", 1)
  process.send(process.pid(), "now", 2)
  check.equal(check.receive(process.listen("now")), 2)
  check.equal(check.receive(process.listen("later")), 1)
end
