-- 15.1 `require` is a lookup among prepared globals, not a file loader; the failure is a raised error.
-- imports: cash=lua.support:money
return function()
  check.raises(require, "module 'lua.support:money' not found", "lua.support:money")
  check.raises(require, "module 'money' not found", "money")
  check.raises(require, "module 'money.lua' not found", "money.lua")
end
