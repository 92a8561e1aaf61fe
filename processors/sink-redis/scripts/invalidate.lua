-- Makes a cache entry stale. KEYS[1] cache key; ARGV: [1] time in ms before which a read may have missed the
-- change, [2] life of the marker in ms, [3] channel, [4] message. Answers 1, or 0 where it changed nothing.
--
-- An entry is a hash: `value` and `read_at`, the source database's time (ms) when the filler began to read.
-- The marker is the field `stale_at` of the same hash: what was read before it must not be filled in.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then
  redis.call('DEL', KEYS[1]) -- not written by our filler, so of unknown age
end
local bound = tonumber(ARGV[1])
local read_at = tonumber(redis.call('HGET', KEYS[1], 'read_at'))
if read_at and read_at >= bound then
  return 0
end
local stale_at = tonumber(redis.call('HGET', KEYS[1], 'stale_at'))
if stale_at and stale_at >= bound and not read_at then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'stale_at', string.format('%.0f', math.max(bound, stale_at or 0)))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
