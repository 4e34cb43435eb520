-- 4 `errors.call_stack(err)`: `{thread, frames = {{level, source, line, name, type}, …}}`.
local function make()
  return (errors.new("here")) -- line 3
end

return function()
  local stack = errors.call_stack(make())
  check.type_is(stack.thread, "string")
  check.is_true(#stack.frames >= 2)
  local frame = stack.frames[1]
  check.equal(frame.line, 3)
  check.matches(frame.source, "call_stack_has_the_frames_of_its_making")
  check.type_is(frame.level, "integer")
  check.type_is(frame.name, "string")
  check.type_is(frame.type, "string")
end
