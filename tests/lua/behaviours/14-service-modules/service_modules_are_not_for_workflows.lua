-- 11.1 A workflow cannot list `logger env events store queue registry sql http_client io`: `require` does not find them.
-- as: workflow
return function()
  for _, name in ipairs{ "logger", "env", "events", "store", "queue", "registry", "sql", "http_client", "io" } do
    check.raises(function() require(name) end, "module '" .. name .. "' not found")
    check.is_nil(_G[name])
  end
end
