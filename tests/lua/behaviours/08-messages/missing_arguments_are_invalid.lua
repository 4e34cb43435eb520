-- 7.3 `process.send`: missing arguments are `Invalid`.
return function()
  check.fails("Invalid", nil, process.send())
  check.fails("Invalid", nil, process.send(process.pid()))
end
