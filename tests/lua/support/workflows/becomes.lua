-- Goes on as another workflow.
return { main = function(id, ...) process.upgrade(id, ...) end }
