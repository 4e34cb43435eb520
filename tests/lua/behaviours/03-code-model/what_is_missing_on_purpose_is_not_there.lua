-- 3.2 Missing on purpose: load, loadstring, dofile, loadfile, collectgarbage, rawlen, io, debug, utf8 (unless io is listed).
-- modules:
return function()
  for name in ("load loadstring dofile loadfile collectgarbage rawlen io debug utf8"):gmatch("%S+") do
    check.is_nil(_G[name], name)
  end
end
