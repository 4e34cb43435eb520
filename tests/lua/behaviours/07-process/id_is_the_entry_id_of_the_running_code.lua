-- 7.1 `process.id()` is the entry ID of the running code.
-- process: never, because its entry has another name then
return function()
  check.equal(process.id(), "lua.behaviours:07-process.id_is_the_entry_id_of_the_running_code")
  check.equal(process.exec("lua.support:about", "lua.support:processes").id, "lua.support:about")
end
