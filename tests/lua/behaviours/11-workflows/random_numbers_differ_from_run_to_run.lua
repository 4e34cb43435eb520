-- 11.1 `math.random` is seeded from the run: two workflows do not see the same numbers.
-- imports: wf=lua.support:wf.lib
return function()
  local one, other = wf.start("wf.random"), wf.start("wf.random")
  check.is_false(wf.value(one) == wf.value(other))
end
