-- Fills a cache entry, for cache fillers. KEYS[1] cache key; ARGV: [1] value, [2] the source database's time in
-- ms taken before the value was read, [3] life of the entry in ms. Answers 1, or 0 where the value may be older
-- than a change already seen, or is older than the entry: then use it once and do not cache it.
local read_at = tonumber(ARGV[2])
local stale_at = tonumber(redis.call('HGET', KEYS[1], 'stale_at'))
if stale_at and read_at < stale_at then
  return 0
end
local newest = tonumber(redis.call('HGET', KEYS[1], 'read_at'))
if newest and read_at < newest then
  return 0
end
redis.call('HSET', KEYS[1], 'value', ARGV[1], 'read_at', ARGV[2])
-- The marker, if there is one, must outlive fillers that are slower than the entry's life.
local life = tonumber(ARGV[3])
if stale_at then
  life = math.max(life, redis.call('PTTL', KEYS[1]))
end
redis.call('PEXPIRE', KEYS[1], life)
return 1
