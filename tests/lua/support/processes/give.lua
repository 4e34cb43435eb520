-- Returns its arguments.
return { main = function(...) return ... end }
