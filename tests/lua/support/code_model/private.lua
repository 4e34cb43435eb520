-- Two processes of this entry on one host share nothing.
local count_of_file = 0
return {
  main = function()
    local inbox = process.inbox()
    while true do
      local m = inbox:receive()
      if m:topic() == "stop" then return end
      count_of_file = count_of_file + 1
      count_of_globals = (rawget(_G, "count_of_globals") or 0) + 1
      string.count_of_library = (string.count_of_library or 0) + 1
      process.send(m:from(), "counts", { count_of_file, count_of_globals, string.count_of_library })
    end
  end,
}
