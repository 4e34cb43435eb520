-- 2.1 The chunk runs synchronously: a blocking call at its top level fails the spawn.
return function()
  check.fails("Internal", nil, process.spawn("lua.support:chunk_blocks", "lua.support:processes"))
end
