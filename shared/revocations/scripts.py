"""The feed's two atomic writes, in the store's Lua. They compare opaque bytes; what is signed they can't make.

Both have KEYS 1 the head, 2 the epoch's stream, and ARGV 1 the head as the caller knows it (empty: none), 2 the new
one. If the head is another by now they change nothing and give that one (nil: none).
"""

_EXPECT = """
local held = redis.call('GET', KEYS[1])
if (held or '') ~= ARGV[1] then return held end
"""

APPEND = (
    _EXPECT
    + """
-- ARGV 3... the entries; gives the list of their stream ids
local ids = {}
for n = 3, #ARGV do ids[n - 2] = redis.call('XADD', KEYS[2], '*', 'e', ARGV[n]) end
redis.call('SET', KEYS[1], ARGV[2])
return ids
"""
)

BEAT = (
    _EXPECT
    + """
-- KEYS 3 the heartbeats; ARGV 3 the first stream id to keep (empty: trim nothing); gives an empty list
if ARGV[3] ~= '' then redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[3]) end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '=', 1, '*', 'e', ARGV[2])
return {}
"""
)
