-- 6.1 `channel.new(size)`: a size that is none is an error, whether raised or returned.
return function()
  for _, size in ipairs{ -1, "many", 1.5 } do
    local ok, ch, err = pcall(channel.new, size)
    check.is_true(not ok or (ch == nil and err ~= nil), check.shown(size))
  end
end
