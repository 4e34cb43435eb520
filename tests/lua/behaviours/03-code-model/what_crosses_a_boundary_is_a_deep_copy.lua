-- 3.4 Arguments, results and message bodies are copied deep.
local funcs = require("funcs")

return function()
  local given = { list = { 1, 2 }, inner = { deep = { text = "x" } } }
  local got = funcs.call("lua.support:echo", given)
  check.equal(got, given)
  check.is_true(got ~= given and got.inner ~= given.inner)
  process.send(process.pid(), "body", given)
  given.inner.deep.text = "changed later"
  check.equal(check.receive(process.listen("body")).inner.deep.text, "x")
end
