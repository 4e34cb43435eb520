-- 1.3 The value of a library is whatever its chunk returns.
-- imports: motto=lua.support:a_text
return function()
  check.equal(motto, "just a text")
end
