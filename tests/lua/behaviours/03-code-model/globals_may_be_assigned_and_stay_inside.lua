-- 3.2 Assigning globals is allowed and stays inside the VM.
local funcs = require("funcs")

return function()
  check.equal(funcs.call("lua.support:sets_a_global"), 1)
  a_global_of_the_suite = "mine"
  check.equal(a_global_of_the_suite, "mine")
  check.is_nil((funcs.call("lua.support:reads_a_global")))
end
