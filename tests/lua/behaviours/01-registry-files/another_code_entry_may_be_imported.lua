-- 1.3 Another code entry is accepted as an import too: its chunk's value is taken.
-- imports: doubling=lua.support:inline
return function()
  check.equal(doubling.run(4), 8)
end
