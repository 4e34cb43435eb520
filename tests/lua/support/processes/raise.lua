-- Raises its argument.
return { main = function(what) error(what) end }
