-- 7.1 An unknown option gives `false, Invalid` with `option X is not supported`, and changes nothing.
return function()
  local ok, err = process.set_options{ trap_exits = true }
  check.is_false(ok)
  check.error_is(err, "Invalid", "option trap_exits is not supported", false)
  process.set_options{ trap_links = true, colour = "red" }
  check.equal(process.get_options(), { trap_links = false })
end
