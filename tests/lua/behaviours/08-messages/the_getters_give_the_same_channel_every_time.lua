-- 7.3 The three channel getters return the same object on every call with the same topic.
return function()
  check.is_true(process.inbox() == process.inbox())
  check.is_true(process.events() == process.events())
  check.is_true(process.listen("t") == process.listen("t"))
  check.is_true(process.listen("t") ~= process.listen("u"))
end
