-- 11.4 `uuid.v1 v4 v7` are computed once in a workflow: a replay has the same ones.
-- as: workflow
local uuid, time, funcs = require("uuid"), require("time"), require("funcs")

return function()
  -- What the callee was told is recorded, what is compared with it is made again by every replay.
  for _ = 1, 2 do
    local ids = { uuid.v1(), uuid.v4(), uuid.v7(), uuid.v4() }
    check.equal(funcs.call("lua.support:pure.echo", ids), ids)
    check.is_true(ids[2] ~= ids[4])
    check.equal({ uuid.version(ids[1]), uuid.version(ids[2]), uuid.version(ids[3]) }, { 1, 4, 7 })
    time.sleep("5ms")
  end
end
