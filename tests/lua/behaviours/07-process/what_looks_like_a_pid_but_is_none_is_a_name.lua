-- 5.1 Braces and `|` are required of a PID: anything else is looked up as a name.
return function()
  for _, dest in ipairs({ "{no bar}", "{open|1", "a|b}", "{}", "host|0x00001" }) do
    check.fails("NotFound", "^could not resolve '", process.send(dest, "x"))
  end
end
