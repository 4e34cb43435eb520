-- 8 A payload may be big: half a megabyte arrives whole.
-- imports: puppets=lua.support:puppets
return function()
  local text = string.rep("0123456789abcdef", 32 * 1024)
  local pid = process.spawn_monitored("lua.support:give", "lua.support:processes", text)
  check.is_true(puppets.exit(pid).value == text)
  local puppet, back = puppets.new(), process.listen("back")
  puppets.tell(puppet, "send", process.pid(), "back", { text = text })
  check.is_true(check.receive(back).text == text)
  puppets.tell(puppet, "return")
end
