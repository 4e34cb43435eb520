-- 14 `sql`: a statement that fails half-way has changed nothing.
local sql = require("sql")

return function()
  local db = assert(sql.get("lua.support:services.db"))
  assert(db:execute("DROP TABLE IF EXISTS halves"))
  assert(db:execute("CREATE TABLE halves (n INTEGER UNIQUE)"))
  assert(db:execute("INSERT INTO halves VALUES (1)"))
  local done, err = db:execute("INSERT INTO halves VALUES (2), (1)")
  check.is_nil(done)
  check.type_is(err, "userdata")
  check.equal(db:query("SELECT count(*) AS n FROM halves")[1].n, 1)
end
