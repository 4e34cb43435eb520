-- 11.2 Search attributes are strings, booleans, integers, floats or lists of strings.
-- imports: wf=lua.support:wf.lib
return function()
  local good = { text = "a", flag = true, count = 3, share = 0.5, tags = { "x", "y" } }
  check.equal(wf.value(wf.start("wf.echo", { search_attributes = good, memo = { any = { { deep = true } } } }, 1)), 1)
  for _, bad in ipairs({ { { deep = 1 } }, { 1, 2 } }) do
    check.fails("Invalid", "^search_attributes must be ",
      process.with_options({ search_attributes = { key = bad } }):spawn("lua.support:wf.echo", wf.worker))
  end
end
