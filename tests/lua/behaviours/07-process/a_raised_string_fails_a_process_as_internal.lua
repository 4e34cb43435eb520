-- 3.3 A raised string becomes kind `Internal` with the text, position included.
return function()
  check.fails("Internal", "raise%.lua:%d+: oh no$", process.exec("lua.support:raise", "lua.support:processes", "oh no"))
end
