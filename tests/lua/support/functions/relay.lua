-- Calls another function and gives what comes of it.
local funcs = require("funcs")
return { main = function(id, ...) return funcs.call(id, ...) end }
