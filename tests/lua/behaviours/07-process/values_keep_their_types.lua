-- 3.4 nil, booleans, integers, floats, byte strings, tables and Errors cross a unit boundary.
-- imports: puppets=lua.support:puppets
return function()
  local bytes = ""
  for i = 0, 255 do bytes = bytes .. string.char(i) end
  local puppet, back = puppets.new(), process.listen("back")
  puppets.tell(puppet, "send", process.pid(), "back", {
    yes = true, no = false, int = 1, min = math.mininteger, max = math.maxinteger, float = 1.5, whole = 2.0,
    inf = math.huge, bytes = bytes, empty = "", list = { 1, { 2, { 3 } } }, [10] = "ten",
    err = errors.new{ message = "m", kind = errors.TIMEOUT, retryable = true, details = { d = 1 } },
  })
  local got = check.receive(back)
  check.is_true(got.yes)
  check.is_false(got.no)
  check.type_is(got.int, "integer")
  check.type_is(got.float, "float")
  check.type_is(got.whole, "float")
  check.equal({ got.min, got.max, got.inf }, { math.mininteger, math.maxinteger, math.huge })
  check.is_true(got.bytes == bytes)
  check.equal(got.empty, "")
  check.equal(got.list, { 1, { 2, { 3 } } })
  check.equal(got[10], "ten")
  check.error_is(got.err, "Timeout", "^m$", true)
  check.equal(got.err:details(), { d = 1 })
  puppets.tell(puppet, "return")
end
