-- 3.3 A raised Error keeps its kind; an empty one becomes `Internal`.
return function()
  check.fails("Internal", "^no kind$", process.exec("lua.support:raise", "lua.support:processes", errors.new("no kind")))
end
