-- Under the name "suite.input" in the whole mesh: answers with its arguments.
return {
  main = function(...)
    process.registry.register("suite.input", process.registry.CONSISTENT)
    local inbox = process.inbox()
    while true do
      process.send(inbox:receive():from(), "input", table.pack(...))
    end
  end,
}
