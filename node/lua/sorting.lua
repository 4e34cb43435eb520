-- Sorting: by C where that does not take long, else here, where the budget counts.

local K = ...
local raw = K.raw

local raw_type, raw_sort, raw_move = raw.type, raw.table.sort, raw.table.move

local FREE <const> = 256 -- elements whose sorting is not worth counting

local SORT_STEPS_MAX <const> = 3e7 -- C compares numbers in 10 ns, and nothing can stop it in between

--- Whether C sorts a list of numbers or texts in a time that nobody minds; what it takes is spent.
function K.sorts_quickly(list, n)
  local kind, cost = raw_type(list[1]), n
  if kind ~= "number" and kind ~= "string" then
    return false
  elseif kind == "string" then
    for i = 1, n do
      cost = cost + #list[i] // 2
    end
  end
  cost = cost * (raw.math.log(n, 2) + 1)
  if cost > SORT_STEPS_MAX then
    return false
  end
  if n > FREE then
    K.spend(raw.math.floor(cost) // 8)
  end
  return true
end

function K.ascending(a, b)
  return a < b
end

local RUN = 8 -- insertion sort up to here, merges above

--- Sort list[1..n] (a plain list) with `less`, stable; returns the sorted list.
local function merge_sort(list, n, less)
  for low = 1, n, RUN do
    local high = low + RUN - 1
    for i = low + 1, high < n and high or n do
      local v, j = list[i], i - 1
      while j >= low and less(v, list[j]) do
        list[j + 1] = list[j]
        j = j - 1
      end
      list[j + 1] = v
    end
  end
  local other, width = {}, RUN
  while width < n do
    for low = 1, n, 2 * width do
      local i, j, k = low, low + width, low
      local i_end = j <= n and j or n + 1
      local j_end = j + width <= n and j + width or n + 1
      if j >= j_end or not less(list[j], list[j - 1]) then
        raw_move(list, low, j_end - 1, low, other) -- already in order
      else
        while i < i_end and j < j_end do
          if less(list[j], list[i]) then
            other[k], j = list[j], j + 1
          else
            other[k], i = list[i], i + 1
          end
          k = k + 1
        end
        raw_move(list, i, i_end - 1, k, other)
        raw_move(list, j, j_end - 1, k + i_end - i, other)
      end
    end
    list, other, width = other, list, width * 2
  end
  return list
end

K.merge_sort = merge_sort

--- Sort a plain list of n numbers or of n texts, which are all different or cannot be told apart.
function K.sort_plain(list, n)
  if n < 2 then
    return list
  elseif K.sorts_quickly(list, n) then
    raw_sort(list)
    return list
  end
  return merge_sort(list, n, K.ascending)
end
