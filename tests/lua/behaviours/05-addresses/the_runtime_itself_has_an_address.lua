-- 5.1 The runtime itself, as a sender: `{|topology}`. A cancel has its canceller in `from`, whom one can compare.
return function()
  check.is_true(process.cancel(process.pid()))
  check.equal(check.receive(process.events()).from, process.pid())
end
