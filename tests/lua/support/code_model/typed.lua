type Item = { sku: string, amount: number }
type Pair<A, B> = {
  first: A,
  second: B,
}

local function twice<T>(value: T): T
  return value
end

local function total(items: {Item}, factor: number?): number
  local sum: number = 0
  for _, item in ipairs(items) do
    sum = sum + (item.amount as number) * ((factor :: number) or 1)
  end
  return sum
end

return {
  main = function(what: string, items: {Item}): any
    if what == "total" then return total(items!, 2) end
    if what == "twice" then return twice(4) end
    error("at line 23") -- the position says so
  end,
}
