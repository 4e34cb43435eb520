-- 11.4 The EXIT of a child that failed has its error; the parent goes on, also when it is linked.
-- as: workflow
-- imports: wf=lua.support:wf.lib
return function()
  for _, variant in ipairs({ "spawn", "spawn_linked" }) do
    local failure = { message = "no", kind = "Conflict", retryable = true, details = { mine = 1 } }
    local pid = process[variant]("lua.support:wf.fail", "lua.support:worker", failure)
    local result = wf.exit(pid).result
    check.is_nil(result.value)
    check.error_is(result.error, "Conflict", "^no$", true)
    check.equal(result.error:details().mine, 1)
  end
end
