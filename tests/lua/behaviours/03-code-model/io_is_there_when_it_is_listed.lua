-- 3.2 `io` is missing unless it is listed.
-- modules: io
return function()
  check.type_is(io, "table")
  check.is_true(require("io") == io)
  check.is_nil(io.open, "not the io of plain Lua")
end
