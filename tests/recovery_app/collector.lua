-- Collects the values of signals, in the order they come, until one says that it was the last.

local function main()
  local inbox = process.inbox()
  local values = {}
  while true do
    local message = inbox:receive()
    if message.last then
      return { values = values }
    end
    values[#values + 1] = message.value
  end
end

return { main = main }
