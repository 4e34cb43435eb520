-- 5.1 `{host|unique}`: a PID on the local node.
return function()
  local short = process.pid():gsub("^{[^@|]*@", "{")
  check.is_true(process.send(short, "hello", 1))
  check.equal(check.receive(process.listen("hello")), 1)
end
