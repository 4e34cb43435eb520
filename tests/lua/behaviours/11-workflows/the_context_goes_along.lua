-- 11.4 Context values go along: from whoever starts it to the workflow, its activities and its children.
return function()
  local spawner = process.with_context({ user = "ada" })
  local function context(id, ...)
    local pid = spawner:spawn_monitored(id, "lua.support:worker", ...)
    return check.receive(process.events()).result.value, pid
  end
  check.equal(context("lua.support:wf.context"), { user = "ada" })
  check.equal(context("lua.support:wf.relay", false, "lua.support:fn.context"), { user = "ada" })
  check.equal(context("lua.support:wf.exec", "lua.support:wf.context"), { user = "ada" })
  check.equal(context("lua.support:wf.exec", "lua.support:wf.relay", false, "lua.support:fn.context"), { user = "ada" })
end
