-- 10.2 Values of `with_context` go on to whatever the child spawns.
return function()
  local about = process.with_context{ trace = "t1" }:exec("lua.support:about_child", "lua.support:processes")
  check.equal(about.context, { trace = "t1" })
end
