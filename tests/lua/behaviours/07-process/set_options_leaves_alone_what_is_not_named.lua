-- 7.1 `process.set_options` changes the options that it is given, no others.
return function()
  process.set_options{ trap_links = true }
  check.is_true((process.set_options{}))
  check.equal(process.get_options(), { trap_links = true })
end
