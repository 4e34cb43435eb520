-- 7.2 `process.exec` gives `nil` and the child's own error: kind, message, retryable and details.
return function()
  for _, retryable in ipairs({ true, false, "unsaid" }) do
    local said = retryable
    if said == "unsaid" then said = nil end
    local own = errors.new{ message = "out of stock", kind = errors.CONFLICT, retryable = said, details = { sku = "a", n = { 1 } } }
    local value, err = process.exec("lua.support:give", "lua.support:processes", nil, own)
    check.is_nil(value)
    check.error_is(err, "Conflict", "^out of stock$", retryable)
    check.equal(err:details(), { sku = "a", n = { 1 } })
    local _, raised = process.exec("lua.support:raise", "lua.support:processes", own)
    check.error_is(raised, "Conflict", "^out of stock$", retryable)
    check.equal(raised:details(), { sku = "a", n = { 1 } })
  end
end
