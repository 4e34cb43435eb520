-- 6.1 Channels cannot be sent elsewhere: in a message they are nil.
return function()
  process.send(process.pid(), "gift", { ch = channel.new(), kept = 1 })
  check.equal(check.receive(process.listen("gift")), { kept = 1 })
end
