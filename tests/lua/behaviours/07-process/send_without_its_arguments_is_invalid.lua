-- 7.3 `process.send` without destination or topic gives `nil, Invalid`.
return function()
  check.is_false(check.fails("Invalid", nil, process.send()):retryable())
  check.is_false(check.fails("Invalid", nil, process.send(process.pid())):retryable())
  check.fails("Invalid", nil, process.send("", "topic"))
  check.fails("Invalid", nil, process.send(process.pid(), ""))
end
