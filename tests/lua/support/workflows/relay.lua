-- Calls an activity, under options (or false), and gives what comes of it.
local funcs = require("funcs")
return { main = function(options, id, ...)
  return funcs.new():with_options(options or {}):call(id, ...)
end }
