-- 14 `sql`: `begin`, `commit`, `rollback`, savepoints.
local sql = require("sql")

return function()
  local db = assert(sql.get("lua.support:services.db"))
  assert(db:execute("DROP TABLE IF EXISTS ledger"))
  assert(db:execute("CREATE TABLE ledger (n INTEGER)"))
  local function numbers()
    local list = {}
    for i, row in ipairs(assert(db:query("SELECT n FROM ledger ORDER BY n"))) do list[i] = row.n end
    return list
  end
  local tx = assert(db:begin())
  assert(tx:execute("INSERT INTO ledger VALUES (1)"))
  check.is_true(tx:savepoint("half"))
  assert(tx:execute("INSERT INTO ledger VALUES (2)"))
  check.is_true(tx:rollback_to("half"))
  check.is_true(tx:release("half"))
  check.equal(#tx:query("SELECT n FROM ledger"), 1)
  check.is_true(tx:commit())
  check.equal(numbers(), { 1 })
  tx = assert(db:begin())
  assert(tx:execute("INSERT INTO ledger VALUES (3)"))
  check.is_true(tx:rollback())
  check.equal(numbers(), { 1 })
  check.fails(errors.INVALID, nil, tx:query("SELECT 1"))
  check.fails(errors.INVALID, nil, tx:commit())
end
