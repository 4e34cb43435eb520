-- Begins a transaction, runs a statement in it, and ends without an end of the transaction. Gives the rows affected.
local sql = require("sql")

return function(statement)
  local tx = assert(assert(sql.get("lua.support:services.db")):begin())
  return assert(tx:execute(statement)).rows_affected
end
