-- 7.2 The arguments after the host are those of `main`, a nil between them too.
return function()
  local about = check.equal(
    (function()
      local a = process.exec("lua.support:about", "lua.support:processes", 1, nil, "three", { four = { 4 } }, false, 2.5)
      return { a.count, a.arg1, a.arg2 == nil, a.arg3, a.arg4, a.arg5, a.arg6 }
    end)(),
    { 6, 1, true, "three", { four = { 4 } }, false, 2.5 }
  )
  check.type_is(about[2], "integer")
  check.equal(process.exec("lua.support:about", "lua.support:processes").count, 0)
end
