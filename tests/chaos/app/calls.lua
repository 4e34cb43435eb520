-- Requests as the functions want them: who asks, for which step, under which key. And a call as all workflows make it.

local funcs = require("funcs")

local calls = {}

-- about = { workflow, key, seed }; step = { name, ms, flaky, decline, value, seen, bulk }
function calls.request(about, step)
  return {
    workflow = about.workflow,
    key = about.key,
    seed = about.seed,
    step = step.name,
    ms = step.ms or 0,
    flaky = step.flaky or 0,
    decline = step.decline or false,
    value = step.value or 0,
    seen = step.seen,
    bulk = step.bulk,
  }
end

function calls.call(id, about, step)
  return funcs.call(id, calls.request(about, step))
end

function calls.is_unknown(err)
  return err ~= nil and err:kind() == "UnknownOutcome"
end

return calls
