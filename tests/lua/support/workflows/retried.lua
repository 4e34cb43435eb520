-- Fails in its first n attempts with an Error of this specification, then gives the number of the attempt.
local workflow = require("workflow")
return { main = function(fails, spec)
  local attempt = workflow.info().attempt
  if attempt <= fails then return nil, errors.new(spec) end
  return attempt
end }
