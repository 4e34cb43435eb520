-- Gives what a child of its own knows of itself, spawned with these context values, if given.
return { main = function(context)
  if context then
    return process.with_context(context):exec("lua.support:about", "lua.support:processes")
  end
  return process.exec("lua.support:about", "lua.support:processes")
end }
