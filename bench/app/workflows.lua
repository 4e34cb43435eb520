local funcs = require("funcs")
local time = require("time")

-- Call a function `count` times, one after the other.
local function steps(count)
    for i = 1, count do
        local answer, err = funcs.call("bench:step", { i = i, name = "bench" })
        if err then
            return nil, err
        end
        if answer.got ~= i then
            error("step " .. i .. " was answered " .. tostring(answer.got))
        end
    end
    return { steps = count }
end

-- The same, then wait for a signal: a long history that is still open.
local function long(count)
    local done, err = steps(count)
    if err then
        return nil, err
    end
    process.inbox():receive()
    return done
end

-- Steps that take a while each, so that many workflows step all the time without filling the machine.
local function paced(count, pace)
    for i = 1, count do
        local _, err = funcs.call("bench:slow_step", { i = i, pace = pace })
        if err then
            return nil, err
        end
    end
    return { steps = count }
end

-- Wait for one signal and return what it says.
local function waiter()
    local message = process.inbox():receive()
    return { woken = message:payload():data() }
end

-- Two steps, and then wait: for a call, in a sleep, or for a signal, and for another signal after it.
local function begun(waits_for)
    local done, err = steps(2)
    if err then
        return nil, err
    end
    if waits_for == "call" then
        funcs.call("bench:held")
    elseif waits_for == "sleep" then
        local inbox, alarm = process.inbox(), time.after("24h")
        local woken = channel.select({ inbox:case_receive(), alarm:case_receive() })
        return { woken = woken.channel == inbox }
    end
    return waiter()
end

-- Sleep until a moment, which is the same for very many.
local function alarm(due_ns)
    local left_ns = due_ns - time.now():unix_nano()
    time.sleep(left_ns)
    return { left_ns = left_ns }
end

return { steps = steps, long = long, paced = paced, waiter = waiter, begun = begun, alarm = alarm }
