-- 11.2 The options that mean nothing here are accepted.
-- imports: wf=lua.support:wf.lib
return function()
  local options = {
    enable_eager_start = true, summary = "s", details = "d", priority = { key = 1 }, versioning_override = "x",
    versioning_intent = "y", task_timeout = "10s", namespace = "default",
  }
  check.equal(wf.value(wf.start("wf.echo", options, 5)), 5)
end
