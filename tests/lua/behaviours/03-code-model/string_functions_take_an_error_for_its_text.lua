-- 3.2 Functions of `string` that take a string also accept an Error object: its text is used (trap 15.20).
return function()
  local err = errors.new{ message = "no such user: ada", kind = errors.NOT_FOUND }
  check.equal({ string.find(err, "user") }, { 9, 12 })
  check.equal(string.match(err, "user: (%w+)"), "ada")
  check.equal(string.upper(err), "NO SUCH USER: ADA")
  check.equal(string.len(err), 17)
  check.equal(string.sub(err, 1, 2), "no")
  check.equal((string.gsub(err, "ada", "grace")), "no such user: grace")
  check.equal(string.format("%s!", err), "no such user: ada!")
  check.equal({ getmetatable("").__index.find(err, "such") }, { 4, 7 })
end
