-- 2.1 A chunk that raises makes the spawn fail, with its error.
return function()
  local err = check.fails("Internal", "the chunk says no", process.spawn("lua.support:chunk_raises_text", "lua.support:processes"))
  check.type_is(err, "userdata")
  check.fails("Internal", "the chunk says no", process.exec("lua.support:chunk_raises_text", "lua.support:processes"))
end
