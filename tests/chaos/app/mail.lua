-- Puts a letter into a message queue.

local queue = require("queue")

local function main(letter)
  local sent, err = queue.publish("chaos:letters", letter)
  if not sent then
    return nil, err
  end
  return { posted = true }
end

return { main = main }
