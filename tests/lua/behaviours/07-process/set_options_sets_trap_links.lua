-- 7.1 `process.set_options{trap_links = bool}` gives `true, nil`, and `get_options` shows it.
return function()
  local ok, err = process.set_options{ trap_links = true }
  check.is_true(ok)
  check.is_nil(err)
  check.equal(process.get_options(), { trap_links = true })
  check.is_true((process.set_options{ trap_links = false }))
  check.equal(process.get_options(), { trap_links = false })
end
