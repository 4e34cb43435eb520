-- 3.2 `coroutine`: create, resume, yield, status, wrap, running, isyieldable, plus spawn.
return function()
  for name in ("create resume yield status wrap running isyieldable spawn"):gmatch("%S+") do
    check.equal(type(coroutine[name]), "function", name)
  end
  local co = coroutine.create(function(a)
    local b = coroutine.yield(a + 1)
    return b * 2
  end)
  check.equal({ coroutine.resume(co, 1) }, { true, 2 })
  check.equal(coroutine.status(co), "suspended")
  check.equal({ coroutine.resume(co, 21) }, { true, 42 })
  check.equal(coroutine.status(co), "dead")
  check.is_false((coroutine.resume(co)))
  local next_one = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end)
  check.equal({ next_one(), next_one(), next_one() }, { 1, 2, 3 })
end
