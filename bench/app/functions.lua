local function step(request)
    return { got = request.i }
end

local function slow_step(request)
    require("time").sleep(request.pace)
    return { got = request.i }
end

return { step = step, slow_step = slow_step }
