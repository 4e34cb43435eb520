-- 8 Order is kept per sender–receiver pair, whatever the topics: the inbox shows it.
return function()
  local topics = { "a", "b", "a", "c", "b", "a" }
  for i, topic in ipairs(topics) do process.send(process.pid(), topic, i) end
  local inbox = process.inbox()
  for i, topic in ipairs(topics) do
    local m = check.receive(inbox)
    check.equal({ m:topic(), m:payload():data() }, { topic, i })
  end
end
