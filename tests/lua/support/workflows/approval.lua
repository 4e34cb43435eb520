-- The workflow of the contract, 11.10.
local workflow, funcs, time = require("workflow"), require("funcs"), require("time")
local function main(order, limit_after)
  local go = process.listen("approve", { message = true })
  local limit = time.after(limit_after)
  local r = channel.select{ go:case_receive(), limit:case_receive() }
  if r.channel == limit then return { state = "expired" } end
  process.send(r.value:from(), "ok", { id = workflow.info().workflow_id })
  local res, err = funcs.call("lua.support:fn.echo", order)
  if err then return nil, err end
  return { state = "paid", receipt = res }
end
return main
