-- Steps, one after the other, until `count` are done. The sum shows that each of them was taken once.

local funcs = require("funcs")

local function main(count, pace_ms)
  local sum = 0
  for i = 1, count do
    local answer, err = funcs.call("shop:step", { i = i, pace_ms = pace_ms })
    if err then
      return nil, err
    end
    sum = sum + answer.got
  end
  return { steps = count, sum = sum }
end

return { main = main }
