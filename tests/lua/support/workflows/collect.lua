-- Gives the first n messages as a list of {topic, value, from}.
return { main = function(n)
  local got = {}
  for i = 1, n do
    local m = process.inbox():receive()
    got[i] = { topic = m:topic(), value = m:payload() and m:payload():data(), from = m:from() }
  end
  return got
end }
