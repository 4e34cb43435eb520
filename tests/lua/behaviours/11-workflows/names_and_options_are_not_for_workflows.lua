-- 11.4 `process.registry` and `process.set_options` return an error in a workflow.
-- as: workflow
return function()
  check.type_is(select(2, process.registry.register("name")), "userdata")
  check.type_is(select(2, process.registry.lookup("name")), "userdata")
  check.type_is(select(2, process.registry.unregister("name")), "userdata")
  local ok, err = process.set_options{ trap_links = true }
  check.is_true(not ok)
  check.type_is(err, "userdata")
end
