local funcs = require("funcs")

local function step(i)
    return i
end

local function steps(count)
    for i = 1, count do
        local answer, err = funcs.call("peers:step", i)
        if err or answer ~= i then
            return nil, err or "wrong answer"
        end
    end
    return count
end

local function waiter()
    return process.inbox():receive():payload():data()
end

local function paced(count, pace_ms, id)
    for i = 1, count do
        local _, err = funcs.call("peers:paced_step", id, i, pace_ms)
        if err then
            return nil, err
        end
    end
    return count
end

return { step = step, steps = steps, waiter = waiter, paced = paced }
