-- A parent: starts its children at once, takes their messages and their ends as they come, and adds up.
--
--   parent = { id, seed, children = {{kind = "leaf"|"echo"|"linger"|"left", ms, value, decline, messages}}, exec }

local time = require("time")
local workflow = require("workflow")

local function start(parent, index, child)
  local input = {
    id = parent.id .. "." .. index, index = index, seed = parent.seed, ms = child.ms, value = child.value,
    decline = child.decline, messages = child.messages, parent = process.pid(),
  }
  local options = { id = input.id }
  if child.kind == "left" then
    options.parent_close_policy = "abandon"
  end
  local entry = child.kind == "left" and "leaf" or child.kind
  return process.with_options(options):spawn("chaos:" .. entry, "chaos:worker", input)
end

local function main(parent)
  local ends, messages, index_of, open = {}, {}, {}, 0
  local events, said = process.events(), process.listen("said")
  for index, child in ipairs(parent.children) do
    local pid, err = start(parent, index, child)
    if err then
      return nil, err
    end
    index_of[pid] = index
    if child.kind == "leaf" or child.kind == "echo" then
      open = open + 1
    end
  end

  -- One more, which is waited for in a coroutine of its own.
  local executed = channel.new(1)
  if parent.exec then
    coroutine.spawn(function()
      local input = { id = parent.id .. ".exec", index = 0, seed = parent.seed, ms = 20, value = parent.exec }
      local value, err = workflow.exec("chaos:leaf", input)
      executed:send({ value = value and value.value, kind = err and err:kind() })
    end)
  end

  local began = time.now()
  while open > 0 do
    local ready = channel.select{ said:case_receive(), events:case_receive() }
    if ready.channel == said then
      local list = messages[tostring(ready.value.index)] or {}
      messages[tostring(ready.value.index)] = list
      list[#list + 1] = ready.value.n
    elseif ready.value.kind == process.event.EXIT and index_of[ready.value.from] then
      local result, index = ready.value.result, index_of[ready.value.from]
      local kind = parent.children[index].kind
      if kind == "leaf" or kind == "echo" then
        open = open - 1
        ends[tostring(index)] = result.error and { kind = result.error:kind() } or { value = result.value.value }
      end
    end
  end

  local sum = 0
  for _, ended in pairs(ends) do
    sum = sum + (ended.value or 0)
  end
  local story = { id = parent.id, ends = ends, messages = messages, sum = sum }
  if parent.exec then
    story.executed = executed:receive()
  end
  story.took_ms = time.now():sub(began):milliseconds()
  return story
end

return { main = main }
