-- 7.2 `process.exec` with a malformed id gives `Invalid`.
return function()
  for _, id in ipairs({ "", "give", ":give", "lua.support:" }) do
    local err = check.fails("Invalid", nil, process.exec(id, "lua.support:processes"))
    check.is_false(err:retryable(), id)
  end
end
