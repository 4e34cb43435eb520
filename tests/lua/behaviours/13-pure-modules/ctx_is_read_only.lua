-- 13.2 Context values are read only: what code does to a table it got changes nothing for others.
local funcs, ctx = require("funcs"), require("ctx")

return function()
  ctx.all().list = { "mine" }
  check.fails(errors.NOT_FOUND, nil, ctx.get("list"))
  check.is_nil(ctx.set)
  local list = { 1 }
  local with = funcs.new():with_context{ list = list }
  check.equal(with:call("lua.support:pure.context"), { list = { 1 } })
  check.equal(funcs.call("lua.support:pure.context"), {})
end
