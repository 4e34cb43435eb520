-- 15 Trap 20: Error objects are passed where strings are expected: functions of `string` take their text.
return function()
  local err = errors.new{ message = "connection refused: db", kind = "Unavailable" }
  local index = getmetatable("").__index
  check.equal({ index.find(err, "refused") }, { 12, 18 })
  check.equal(string.find(err, "refused"), 12)
  check.equal(string.match(err, "(%w+)$"), "db")
  check.equal(string.upper(err), "CONNECTION REFUSED: DB")
  check.equal(string.len(err), 22)
  check.equal(string.sub(err, 1, 10), "connection")
  check.equal((string.gsub(err, "refused", "lost")), "connection lost: db")
  check.equal(string.format("%s!", err), "connection refused: db!")
  check.equal("E: " .. err, "E: connection refused: db")
  check.equal(err .. ".", "connection refused: db.")
end
