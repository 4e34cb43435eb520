-- 6.2 A select that sends and one that receives meet on a rendezvous channel.
return function()
  local ch, done = channel.new(), channel.new(1)
  coroutine.spawn(function() done:send(channel.select{ ch:case_send("met") }) end)
  local r = channel.select{ ch:case_receive() }
  check.equal(r.value, "met")
  check.is_true(check.receive(done).channel == ch)
end
