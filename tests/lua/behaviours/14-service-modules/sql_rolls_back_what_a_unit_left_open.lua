-- 14 `sql`: a transaction belongs to its unit and is rolled back when that ends.
-- nodes: one, because a database in memory is of one node
local sql, funcs = require("sql"), require("funcs")

return function()
  local db = assert(sql.get("lua.support:services.db"))
  assert(db:execute("DROP TABLE IF EXISTS open"))
  assert(db:execute("CREATE TABLE open (n INTEGER)"))
  check.equal(funcs.call("lua.support:services.leave_open", "INSERT INTO open VALUES (1)"), 1)
  assert(db:execute("INSERT INTO open VALUES (2)"))
  check.equal(db:query("SELECT n FROM open"), { { n = 2 } })
end
