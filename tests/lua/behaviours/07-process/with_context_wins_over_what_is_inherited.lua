-- 10.2 The child sees the context of its spawner and `with_context`, which wins.
return function()
  local spawner = process.with_context{ a = 1, b = 1 }
  local about = spawner:exec("lua.support:about_child", "lua.support:processes", { b = 2, c = 2 })
  check.equal(about.context, { a = 1, b = 2, c = 2 })
end
