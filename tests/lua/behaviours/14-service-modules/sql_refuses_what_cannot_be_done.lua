-- 14 `sql`: unknown databases, bad statements and parameters are errors.
local sql = require("sql")

return function()
  check.fails(errors.INVALID, nil, sql.get(""))
  check.fails(errors.NOT_FOUND, nil, sql.get("lua.support:no_such"))
  local db = assert(sql.get("lua.support:services.db"))
  check.is_nil((db:query("SELEKT 1")))
  check.is_nil((db:query("SELECT * FROM no_such_table")))
  check.fails(errors.INVALID, nil, db:query(""))
  check.fails(errors.INVALID, nil, db:query("SELECT ?", { {} }))
  check.fails(errors.INVALID, nil, db:query("SELECT ?", { 1, name = 2 }))
  check.is_true(db:release())
  check.is_true(db:release())
  check.fails(errors.INVALID, nil, db:query("SELECT 1"))
end
