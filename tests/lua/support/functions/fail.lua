-- Fails with an Error of this specification; with `raised` by raising it, with a text by raising that.
return { main = function(spec, raised)
  if type(spec) == "string" then error(spec) end
  if raised then error(errors.new(spec)) end
  return nil, errors.new(spec)
end }
