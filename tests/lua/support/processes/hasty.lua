-- Sends itself a message before it does anything else, and returns the topics of what its inbox holds at that moment.
return { main = function()
  process.send(process.pid(), "mine")
  local inbox, topics = process.inbox(), {}
  while true do
    local r = channel.select{ inbox:case_receive(), default = true }
    if r.default then return topics end
    topics[#topics + 1] = r.value:topic()
    if topics[#topics] == "mine" then return topics end
  end
end }
