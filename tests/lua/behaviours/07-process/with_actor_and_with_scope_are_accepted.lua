-- 7.2 `with_actor` and `with_scope` are accepted.
return function()
  local spawner = process.with_context{ a = 1 }:with_actor({ id = "me" }):with_scope({})
  check.equal(spawner:exec("lua.support:about", "lua.support:processes").context, { a = 1 })
end
