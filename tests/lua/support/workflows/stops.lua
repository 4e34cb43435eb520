-- Asks somebody to stop, with "cancel" or "terminate". Gives what that gave.
return { main = function(verb, pid) return process[verb](pid) end }
