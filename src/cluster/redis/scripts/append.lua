-- Appends an entry, unless the journal is known to be in another epoch. Gives the entry's position.
--
-- KEYS: the stream, the hash.
-- ARGV: the entry's epoch, 0 if its writer knows none; the epoch that it begins, or ''; how far its writer had seen the
-- journal; its time in ms; the entry.
--
-- Redis takes nothing back when a script fails half-way, so the first write is the one that may be refused. Epochs are
-- compared as text: Lua's numbers hold 53 bits.

local stream, meta = KEYS[1], KEYS[2]
local epoch, begins, looked, time, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local known = redis.call('HMGET', meta, 'epoch', 'end', 'bytes', 'began_at')
-- Who knows no epoch may begin one if it has seen the present one begin, and not what came after that.
local anew = begins ~= '' and epoch == '0' and tonumber(known[4] or 0) <= tonumber(looked)
if known[1] and known[1] ~= epoch and not anew then
  return redis.error_reply('FENCED the journal is in another epoch')
end
local position = tonumber(known[2] or 0) + 1
-- Small entries take about so much more than themselves in Redis' memory.
local size = #entry + 64
local bytes = tonumber(known[3] or 0) + size

local function whole(number)
  return string.format('%.0f', number)
end

local function add()
  return redis.pcall('XADD', stream, whole(position) .. '-0', 'e', entry, 't', time, 'b', whole(bytes))
end

local added = add()
if type(added) == 'table' then
  -- Refused. If that is because the stream has ids that the hash does not know (somebody added an entry, or removed the
  -- hash), the entry goes above them.
  local info = redis.pcall('XINFO', 'STREAM', stream)
  local top = 0
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      top = tonumber(string.match(info[i + 1], '^%d+'))
    elseif info[i] == 'last-entry' and info[i + 1] then
      local fields = info[i + 1][2]
      for j = 1, #fields, 2 do
        if fields[j] == 'b' then
          bytes = math.max(bytes, (tonumber(fields[j + 1]) or 0) + size)
        end
      end
    end
  end
  if top < position then
    return added
  end
  position = top + 1
  added = add()
  if type(added) == 'table' then
    return added
  end
end

if begins == '' then
  redis.call('HSET', meta, 'end', whole(position), 'bytes', whole(bytes))
else
  redis.call('HSET', meta, 'end', whole(position), 'bytes', whole(bytes),
    'epoch', begins, 'began_at', whole(position))
end
return position
