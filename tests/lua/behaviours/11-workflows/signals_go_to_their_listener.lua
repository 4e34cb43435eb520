-- 11.4 `listen`, `unlisten` and `inbox` in a workflow are those of a process (8).
-- as: workflow
return function()
  local me = process.pid()
  local plain, whole = process.listen("plain"), process.listen("whole", { message = true })
  process.send(me, "other", 3)
  process.send(me, "plain", 1)
  process.send(me, "whole", 2)
  check.equal(check.receive(plain, "20s"), 1)
  check.equal(check.receive(whole, "20s"):payload():data(), 2)
  check.equal(check.receive(process.inbox(), "20s"):topic(), "other")
  check.is_true(process.unlisten(plain))
  process.send(me, "plain", 4)
  check.equal(check.receive(process.inbox(), "20s"):payload():data(), 4)
end
