-- 7.2 `process.spawn` adds neither monitor nor link: its end and its failure are not told.
return function()
  process.set_options{ trap_links = true }
  process.spawn("lua.support:give", "lua.support:processes", 1)
  process.spawn("lua.support:raise", "lua.support:processes", "x")
  check.nothing(process.events())
end
