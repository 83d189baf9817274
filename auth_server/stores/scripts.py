"""The atomic writes of :mod:`auth_server.stores.clients`, in the store's Lua.

All have KEYS 1 the client, 2 the change stream, 3 its counter, and ARGV 1 the client id, 2 how many changes to keep.
They read before they write anything, so a refusal changes nothing. Times are text made by the caller.
"""

_NOTE_CHANGE = """
local function note_change()
  local n = redis.call('INCR', KEYS[3])
  redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[2], '*', 'n', n, 'client', ARGV[1])
end
"""

CREATE = (
    _NOTE_CHANGE
    + """
-- KEYS 4 index, 5 demo ids; ARGV 3 whether it is a demo client, 4... field and value in turn
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('ZADD', KEYS[4], 0, ARGV[1])
if ARGV[3] == '1' then redis.call('SADD', KEYS[5], ARGV[1]) end
note_change()
return 1
"""
)

ADD_SECRET = (
    _NOTE_CHANGE
    + """
-- ARGV 3 hash, 4 created at (which is now), 5 end of the previous secret, 6 expires at (0: never)
local held = redis.call('HMGET', KEYS[1], 'hash_1', 'created_at_1', 'expires_at_1', 'hash_2', 'expires_at_2')
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local now, previous_end = tonumber(ARGV[4]), tonumber(ARGV[5])
local function live(expires_at) return tonumber(expires_at) == 0 or tonumber(expires_at) > now end
local overlaps = held[1] and previous_end > now and live(held[3])
if overlaps and held[4] and live(held[5]) then return 'two live' end
redis.call('HDEL', KEYS[1], 'hash_2', 'created_at_2', 'expires_at_2')
if overlaps then
  local ends = ARGV[5]
  if tonumber(held[3]) ~= 0 and tonumber(held[3]) < previous_end then ends = held[3] end
  redis.call('HSET', KEYS[1], 'hash_2', held[1], 'created_at_2', held[2], 'expires_at_2', ends)
end
redis.call('HSET', KEYS[1], 'hash_1', ARGV[3], 'created_at_1', ARGV[4], 'expires_at_1', ARGV[6])
note_change()
return 1
"""
)

SET_DISABLED = (
    _NOTE_CHANGE
    + """
-- ARGV 3 since when, or empty to enable
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], 'disabled_at')
else
  redis.call('HSETNX', KEYS[1], 'disabled_at', ARGV[3])
end
note_change()
return 1
"""
)

DELETE = (
    _NOTE_CHANGE
    + """
-- KEYS 4 index, 5 demo ids
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('SREM', KEYS[5], ARGV[1])
note_change()
return 1
"""
)
