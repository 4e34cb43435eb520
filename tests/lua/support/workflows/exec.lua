-- Executes a child workflow and gives what comes of it.
local workflow = require("workflow")
return { main = function(id, ...) return workflow.exec(id, ...) end }
