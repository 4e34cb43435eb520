-- Fails in a way that is worth another try.
return function()
  return nil, errors.new{ message = "not now", kind = errors.UNAVAILABLE, retryable = true }
end
