-- A variable as code of this namespace sees it.
local env = require("env")

return function(name)
  return env.get(name)
end
