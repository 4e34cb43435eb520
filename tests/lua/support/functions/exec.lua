-- Executes a process or a workflow and gives what comes of it.
return { main = function(id, host, ...) return process.exec(id, host, ...) end }
