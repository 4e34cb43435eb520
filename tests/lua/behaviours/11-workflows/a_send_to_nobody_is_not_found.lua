-- 11.4 A send to a workflow that is not there: NotFound, not retryable, and the text names the target.
-- as: workflow
return function()
  local pid = process.pid():gsub("|.*}", "|nobody-is-called-so}")
  check.error_is(check.fails("NotFound", "nobody%-is%-called%-so", process.send(pid, "topic", 1)), "NotFound", nil, false)
  local name = "no name of anybody"
  check.error_is(check.fails("NotFound", name, process.send(name, "topic")), "NotFound", nil, false)
end
