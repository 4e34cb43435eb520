-- 5.2 The scopes LOCAL, EVENTUAL, CONSISTENT and STRONG are 0, 1, 2 and 3.
return function()
  local r = process.registry
  check.equal({ r.LOCAL, r.EVENTUAL, r.CONSISTENT, r.STRONG }, { 0, 1, 2, 3 })
end
