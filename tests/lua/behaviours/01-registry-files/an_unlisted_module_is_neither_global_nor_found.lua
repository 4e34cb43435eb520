-- 1.3 `require(x)` for anything not listed raises `module 'x' not found`.
-- modules: json
return function()
  check.is_nil(rawget(_G, "base64"))
  check.raises(require, "module 'base64' not found", "base64")
  check.raises(require, "module 'no such thing' not found", "no such thing")
end
