-- 11.2 The values of the policies are fixed; any other text is Invalid.
return function()
  for _, key in ipairs({ "id_conflict_policy", "id_reuse_policy", "parent_close_policy" }) do
    check.fails("Invalid", "^" .. key .. " must be ",
      process.with_options({ [key] = "sometimes" }):spawn("lua.support:wf.echo", "lua.support:worker"))
  end
end
