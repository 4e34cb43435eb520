-- 7.1 `trap_links` of another type gives `false, Invalid` with `trap_links must be a boolean`.
return function()
  for _, wrong in ipairs({ 1, "true", {} }) do
    local ok, err = process.set_options{ trap_links = wrong }
    check.is_false(ok)
    check.error_is(err, "Invalid", "trap_links must be a boolean", false)
  end
  check.equal(process.get_options(), { trap_links = false })
end
