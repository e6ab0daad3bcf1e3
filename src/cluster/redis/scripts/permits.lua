-- Gives the first of the journal's commands that this user may not run; false if there is none.
--
-- KEYS: the stream, the hash, the stream of announcements.

local stream, meta, nodes = KEYS[1], KEYS[2], KEYS[3]
local needed = {
  { 'HMGET', meta, 'epoch' },
  { 'HGET', meta, 'end' },
  { 'HSET', meta, 'end', '1' },
  { 'XADD', stream, '1-0', 'e', '' },
  { 'XADD', nodes, 'MAXLEN', '~', '1000', '*', 'e', '' },
  { 'XINFO', 'STREAM', stream },
  { 'XRANGE', stream, '-', '+' },
  { 'XREVRANGE', nodes, '+', '-' },
  { 'XREAD', 'STREAMS', stream, nodes, '0', '0' },
  { 'XTRIM', stream, 'MINID', '=', '1' },
}
for _, command in ipairs(needed) do
  if not redis.acl_check_cmd(unpack(command)) then
    return command[1]
  end
end
return false
