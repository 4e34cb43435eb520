-- 7.3 `inbox`, `events` and `listen` of one topic give the same channel on every call.
return function()
  check.is_true(process.inbox() == process.inbox())
  check.is_true(process.events() == process.events())
  check.is_true(process.listen("a") == process.listen("a"))
  check.is_true(process.listen("a") ~= process.listen("b"))
  check.is_true(process.inbox() ~= process.events())
end
