-- Gives a value, and a text beside it.
return { main = function(text) return "value", text end }
