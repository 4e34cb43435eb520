-- Gives workflow.info().
local workflow = require("workflow")
return { main = function() return workflow.info() end }
