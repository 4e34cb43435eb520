-- Under the name "suite.input" in the whole mesh: answers with its arguments, until it is cancelled.
return {
  main = function(...)
    process.registry.register("suite.input", process.registry.CONSISTENT)
    local inbox, events = process.inbox(), process.events()
    while true do
      local r = channel.select{ inbox:case_receive(), events:case_receive() }
      if r.channel == events then return end
      process.send(r.value:from(), "input", table.pack(...))
    end
  end,
}
