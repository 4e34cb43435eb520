-- 2.1 A chunk whose table lacks the method fails the start with `NotFound`, `method "x" not found in module`.
return function()
  check.fails("NotFound", 'method "main" not found in module', process.spawn("lua.support:chunk_without_main", "lua.support:processes"))
  check.fails("NotFound", 'method "main" not found in module', process.spawn("lua.support:chunk_of_a_number", "lua.support:processes"))
end
