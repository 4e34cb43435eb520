-- A child that nobody waits for: it ends with its parent.

local time = require("time")

local function main()
  time.sleep("10h")
  return "nobody has ended this"
end

return { main = main }
