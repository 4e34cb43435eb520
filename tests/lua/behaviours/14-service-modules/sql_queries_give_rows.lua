-- 14 `sql`: a database is got by its ID; `execute` tells what it changed, `query` gives a list of rows by column.
local sql = require("sql")

return function()
  local db = assert(sql.get("lua.support:services.db"))
  check.equal(db:type(), sql.type.SQLITE)
  assert(db:execute("DROP TABLE IF EXISTS cups"))
  assert(db:execute("CREATE TABLE cups (id INTEGER PRIMARY KEY, color TEXT, litres REAL)"))
  local done = assert(db:execute("INSERT INTO cups (color, litres) VALUES (?, ?), (?, ?)", { "red", 0.5, "blue", 1 }))
  check.equal(done.rows_affected, 2)
  check.equal(done.last_insert_id, 2)
  local rows, err = db:query("SELECT * FROM cups WHERE color = :c", { c = "red" })
  check.is_nil(err)
  check.equal(rows, { { id = 1, color = "red", litres = 0.5 } })
  check.equal(db:query("SELECT id FROM cups WHERE id > ?", { 7 }), {})
  db:release()
end
