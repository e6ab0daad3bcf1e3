-- Removes the oldest entries that are over a bound, a stretch of positions at most. Gives how many.
--
-- KEYS: the stream, the hash.
-- ARGV: the present time in ms, what age may be kept in ms, what may be kept in bytes, the stretch (a power of two).
--
-- An entry is over if it is too old, or if those after it fill the bytes by themselves. The newest always stays. Where
-- the stretch ends is found by halving, so that a run looks at few entries, however large they are.

local stream, meta = KEYS[1], KEYS[2]
local now, age_max, bytes_max, stretch = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local bytes = tonumber(redis.call('HGET', meta, 'bytes') or 0)

local function position(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

local function id(number)
  return string.format('%.0f', number)
end

-- nil if it is not one of ours.
local function over(entry)
  local time, upto
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 't' then
      time = tonumber(entry[2][i + 1])
    elseif entry[2][i] == 'b' then
      upto = tonumber(entry[2][i + 1])
    end
  end
  if time and upto then
    return now - time > age_max or bytes - upto >= bytes_max
  end
end

local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
-- What is not ours at the very beginning holds up nothing.
if not oldest or oldest[1] == newest[1] or over(oldest) == false then
  return 0
end

local cut, step = position(oldest), stretch / 2
while step >= 1 do
  local entry = redis.call('XREVRANGE', stream, id(cut + step), '-', 'COUNT', 1)[1]
  if over(entry) then
    cut = cut + step
  end
  step = step / 2
end
return redis.call('XTRIM', stream, 'MINID', '=', id(math.min(cut + 1, position(newest))))
