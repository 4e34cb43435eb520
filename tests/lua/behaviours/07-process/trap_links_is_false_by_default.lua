-- 7.1 `process.get_options()` gives `{trap_links = false}` by default.
return function()
  check.equal(process.get_options(), { trap_links = false })
  check.equal(process.exec("lua.support:about", "lua.support:processes").options, { trap_links = false })
end
