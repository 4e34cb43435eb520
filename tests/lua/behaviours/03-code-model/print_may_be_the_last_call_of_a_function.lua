-- 3.2 `print` writes a log line also where a tail call has left no position to write beside it.
return function()
  return print("the end")
end
