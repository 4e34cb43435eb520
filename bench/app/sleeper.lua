local time = require("time")

-- Sleep for a day unless somebody says something.
local function main(nap)
    local inbox, alarm = process.inbox(), time.after(nap)
    local woken = channel.select({ inbox:case_receive(), alarm:case_receive() })
    return { woken = woken.channel == inbox }
end

return { main = main }
