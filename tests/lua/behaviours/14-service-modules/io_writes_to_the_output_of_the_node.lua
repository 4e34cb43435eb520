-- 14.2 `io.print(...)`, `io.write(...)`, `io.eprint(...)`, `io.flush()`: elsewhere than on a terminal host
-- `io.print`/`io.write` go to stdout too.
local io = require("io")

return function()
  for _, name in ipairs{ "print", "write", "eprint" } do
    check.is_nil(select(2, io[name]("a line of the suite", 1, nil, true, errors.new("an Error"), "\n")), name)
    check.is_nil(select(2, io[name]()), name)
  end
  check.is_nil(select(2, io.flush()))
end
