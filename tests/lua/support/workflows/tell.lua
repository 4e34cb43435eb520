-- Sends messages to somebody, one after the other, each {topic, value}. Gives what each send gave.
return { main = function(to, messages)
  local results = {}
  for i, message in ipairs(messages) do
    local ok, err = process.send(to, message[1], message[2])
    results[i] = err and { kind = err:kind(), message = err:message(), retryable = err:retryable() } or ok
  end
  return results
end }
