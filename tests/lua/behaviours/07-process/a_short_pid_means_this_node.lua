-- 5.1 A PID may be written `{host|unique}` for the local node.
return function()
  local short = process.pid():gsub("^{[^@|]*@", "{")
  check.is_true((process.send(short, "x", 1)))
  check.equal(check.receive(process.inbox()):payload():data(), 1)
end
