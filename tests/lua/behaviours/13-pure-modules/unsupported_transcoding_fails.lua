-- 13.5 Unsupported transcoding → `Internal`, not retryable.
return function()
  local p, err = payload.new({ 1 }):transcode("image/png")
  check.is_nil(p)
  check.error_is(err, errors.INTERNAL, nil, false)
  p, err = payload.new({ 1 }):transcode(payload.format.STRING)
  check.is_nil(p)
  check.error_is(err, errors.INTERNAL, nil, false)
end
