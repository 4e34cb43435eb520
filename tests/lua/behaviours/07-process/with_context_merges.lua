-- 7.2 `:with_context` merges: what was there stays, the same key is replaced.
return function()
  local spawner = process.with_context{ a = 1, b = 1 }:with_context{ b = 2 }:with_context{ c = 3 }
  check.equal(spawner:exec("lua.support:about", "lua.support:processes").context, { a = 1, b = 2, c = 3 })
end
