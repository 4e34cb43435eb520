-- 7.3 A topic that starts with `@` is `Invalid`, for send and listen; so is an empty one to listen to.
return function()
  check.fails("Invalid", nil, process.send(process.pid(), "@mine", 1))
  check.fails("Invalid", nil, process.listen("@mine"))
  check.fails("Invalid", nil, process.listen(""))
end
