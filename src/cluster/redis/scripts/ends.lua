-- Gives the end that the hash knows, and the ids of the oldest and newest kept entry; false for what is not there.
--
-- KEYS: the stream, the hash.

local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return { redis.call('HGET', KEYS[2], 'end'), oldest and oldest[1] or false, newest and newest[1] or false }
