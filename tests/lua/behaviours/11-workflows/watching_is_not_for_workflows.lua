-- 11.4 `monitor unmonitor link unlink` in a workflow: nil, err of kind Internal, `process.X not supported in workflow context`.
-- as: workflow
return function()
  for _, verb in ipairs({ "monitor", "unmonitor", "link", "unlink" }) do
    check.fails("Internal", "^process%." .. verb .. " not supported in workflow context", process[verb](process.pid()))
  end
end
