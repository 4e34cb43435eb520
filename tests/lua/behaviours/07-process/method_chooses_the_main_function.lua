-- 2.1 `method` names the function of the chunk's table that runs.
return function()
  check.equal(process.exec("lua.support:chunk_of_another_method", "lua.support:processes"), "other")
end
