-- Gives its PID.
return { main = function() return process.pid() end }
