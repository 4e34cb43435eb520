-- 14 `sql`: `prepare` → a statement with `query`, `execute`, `close`.
local sql = require("sql")

return function()
  local db = assert(sql.get("lua.support:services.db"))
  local statement = assert(db:prepare("SELECT ? + ? AS sum"))
  check.equal(statement:query({ 1, 2 })[1].sum, 3)
  check.equal(statement:query({ 3, 4 })[1].sum, 7)
  check.is_true(statement:close())
  check.fails(errors.INVALID, nil, statement:query({ 1, 2 }))
  check.is_nil((db:prepare("SELEKT 1")))
end
