-- 5.2 A destination that is neither a PID nor a name: `NotFound`, `could not resolve 'x' as PID or registered name`.
return function()
  local name = check.unique("nobody")
  local _, err = process.send(name, "x", 1)
  check.error_is(err, "NotFound", "^could not resolve '", false)
  check.is_true(err:message() == "could not resolve '" .. name .. "' as PID or registered name")
end
