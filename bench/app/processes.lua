local funcs = require("funcs")

-- The process that answers on either side: the body of each message goes back to its sender.
local function answerer()
    local inbox = process.inbox()
    while true do
        local message = inbox:receive()
        local sent, err = process.send(message:from(), "answer", message:payload():data())
        if not sent then
            return nil, err
        end
    end
end

-- A call that is under way for as long as its node is.
local function held()
    process.inbox():receive()
end

-- Send a body and wait for it to come back, `count` times.
local function bounce(to, count, body)
    local inbox = process.inbox()
    for i = 1, count do
        local sent, err = process.send(to, "ask", body or i)
        if not sent then
            error(err)
        end
        local answer = inbox:receive():payload():data()
        if not body and answer ~= i then
            error("message " .. i .. " was answered " .. tostring(answer))
        end
    end
    return count
end

local function started(host, ...)
    local pid, err = process.spawn("bench:answerer", host, ...)
    if not pid then
        error(err)
    end
    return pid
end

-- Round trips with one other process, which is on any node that runs `host`.
local function pair(host, count)
    local other = started(host)
    local done = bounce(other, count)
    process.terminate(other)
    return done
end

local function pair_by_name(host, count)
    local other = started(host)
    local named, err = process.registry.register("bench-" .. process.pid(), other)
    if not named then
        return nil, err
    end
    local done = bounce("bench-" .. process.pid(), count)
    process.terminate(other)
    return done
end

local function pair_with_table(host, count, bytes)
    local items = {}
    for i = 1, bytes // 64 do
        items[i] = { id = i, name = "an item of the order, as it came in", price = i * 1.25, left = true }
    end
    local other = started(host)
    local done = bounce(other, count, { items = items })
    process.terminate(other)
    return done
end

-- `count` processes that are there at the same time; each is sent one message, and answers it.
local function crowd(host, count)
    local inbox, pids, open = process.inbox(), {}, {}
    for i = 1, count do
        pids[i] = started(host)
        open[pids[i]] = i
    end
    for i = 1, count do
        local sent, err = process.send(pids[i], "ask", i)
        if not sent then
            error(err)
        end
    end
    for _ = 1, count do
        local message = inbox:receive()
        if open[message:from()] ~= message:payload():data() then
            error("a wrong answer of " .. message:from())
        end
        open[message:from()] = nil
    end
    return next(open) == nil and count or nil
end

local function nobody() end

-- `count` processes that end at once, one started after the other; the last end is waited for.
local function short_lives(host, count)
    for _ = 1, count - 1 do
        local pid, err = process.spawn("bench:nobody", host)
        if not pid then
            return nil, err
        end
    end
    local pid, err = process.spawn_monitored("bench:nobody", host)
    if not pid then
        return nil, err
    end
    local last = process.events():receive()
    return last.from == pid and count or nil
end

-- Start a process, be told of its end, start the next one.
local function watched_lives(host, count)
    local events = process.events()
    for _ = 1, count do
        local pid, err = process.spawn_monitored("bench:nobody", host)
        if not pid then
            return nil, err
        end
        local ended = events:receive()
        if ended.from ~= pid or ended.result.error then
            error("a wrong end of " .. tostring(ended.from))
        end
    end
    return count
end

-- Call a function `count` times, one after the other.
local function calls(_, count)
    for i = 1, count do
        local answer, err = funcs.call("bench:step", { i = i, name = "bench" })
        if err then
            return nil, err
        end
        if answer.got ~= i then
            error("call " .. i .. " was answered " .. tostring(answer.got))
        end
    end
    return count
end

-- From outside: run one of the above in a process beside the answerers of this node, and say what it returned.
local function run(id, ...)
    return process.exec(id, "bench:near", ...)
end

return {
    answerer = answerer, held = held, nobody = nobody, pair = pair, pair_by_name = pair_by_name, pair_with_table = pair_with_table,
    crowd = crowd, short_lives = short_lives, watched_lives = watched_lives, calls = calls, run = run,
}
