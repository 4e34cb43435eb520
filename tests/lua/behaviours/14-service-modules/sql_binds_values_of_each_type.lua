-- 14 `sql.as` and `sql.NULL`: values for columns; what is bound is never read as SQL.
local sql = require("sql")

return function()
  local db = assert(sql.get("lua.support:services.db"))
  local function kind_of(v) return db:query("SELECT typeof(?) AS t", { v })[1].t end
  check.equal(kind_of(sql.as.int("7")), "integer")
  check.equal(kind_of(sql.as.float("7")), "real")
  check.equal(kind_of(sql.as.text(7)), "text")
  check.equal(kind_of(sql.as.binary("\0\xFF")), "blob")
  check.equal(kind_of(sql.as.null()), "null")
  check.equal(kind_of(sql.NULL), "null")
  check.equal(db:query("SELECT ? AS v", { "'; DROP TABLE x; --" })[1].v, "'; DROP TABLE x; --")
  check.fails(errors.INVALID, nil, sql.as.int("seven"))
  check.fails(errors.INVALID, nil, sql.as.float("x"))
  check.fails(errors.INVALID, nil, sql.as.binary(5))
end
