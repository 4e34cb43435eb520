-- Takes a few messages in each run and goes on as a new one, until it has n. Gives their values and the number of runs.
return { main = function(n, seen)
  seen = seen or { got = {}, runs = 0 }
  seen.runs = seen.runs + 1
  local inbox = process.inbox()
  for _ = 1, 7 do
    if #seen.got == n then return seen end
    seen.got[#seen.got + 1] = inbox:receive():payload():data()
  end
  process.upgrade(nil, n, seen)
end }
