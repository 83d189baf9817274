"""The one script that all worker processes share: debit, lease ahead, report, give back, several limits in one call.

Key ``flex:{limit}:key:<name>``: a hash that ends by itself when nothing of it matters any more.
``t`` arrival in µs (see ``gcra``), ``i`` its interval, ``r`` when units were last recalled, and for each worker that
holds a lease ``w:<worker>:<count>/<interval>`` = ``units:expires_us:sequence``.
Key ``flex:{limit}:recalls``: a stream of the names whose units somebody needs back; at most about 256 entries, 60 s.

Why nothing is ever admitted too much, although leased units are spent later than they are debited: the script counts
units out on lease as if they were being spent at this very moment (arrival >= now + out x interval), until they are
reported as spent, are given back, or expire; so the arrival here is never before the one that the true times of use
give. Without this a lease taken from a full bucket would be refilled by time and spent on top of a whole burst.
"""

from shared.rate_limit.gcra import Limit

KEY_PREFIX = "flex:{limit}:key:"
RECALLS = "flex:{limit}:recalls"


def lease_field(worker: str, limit: Limit) -> str:
    """Name the field of a worker's lease, as the script forms it: leases under different limits are different."""
    return f"w:{worker}:{limit.count}/{limit.interval_us}"


SCRIPT = """
-- KEYS the limits, last the recall stream. ARGV 1 now (µs, 0: the store's own clock), 2 worker, 3 number of workers,
-- 4 length of a lease (µs), 5 sequence, then for each limit: interval (µs), count, need (all limits or none), queued
-- (at least need; as far as it goes), ahead (how many to hold beyond that), held (-1: no report), spent since the last
-- report, debt (units admitted without the store).
-- Gives: 1 granted | 0 short | -1 out of date, now, and for each limit: leased ahead, granted for the queue, room
-- left (units; negative: none), µs until one more unit, units out at other workers.
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local worker, n_workers, lease_us, sequence = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local function read(name, interval, field)
  local values = redis.call('HGETALL', name)
  local state = {arrival = 0, recalled = 0, out = 0, own = 0, seen = 0, others = 0, holders = 1, lapsed = {}}
  local leases = {}
  for i = 1, #values, 2 do
    local key, value = values[i], values[i + 1]
    if key == 't' then state.arrival = tonumber(value)
    elseif key == 'i' then state.interval = tonumber(value)
    elseif key == 'r' then state.recalled = tonumber(value)
    else
      local units, ends, seen = string.match(value, '^(%d+):(%d+):(%d+)$')
      leases[#leases + 1] = {key = key, units = tonumber(units), ends = tonumber(ends)}
      if key == field then state.seen = tonumber(seen) end
    end
  end
  -- the limit was changed: what was used stays used, in units
  if state.interval and state.interval ~= interval and state.arrival > now then
    state.arrival = now + math.ceil((state.arrival - now) / state.interval * interval)
  end
  for _, lease in ipairs(leases) do
    if lease.ends <= now then  -- over: its units count as spent when it ended
      local out = 0
      for _, other in ipairs(leases) do
        if other.ends >= lease.ends then out = out + other.units end
      end
      state.arrival = math.max(state.arrival, lease.ends + out * interval)
      state.lapsed[#state.lapsed + 1] = lease.key
    else
      state.out = state.out + lease.units
      if lease.key == field then state.own = lease.units
      else
        state.others = state.others + lease.units
        if lease.units > 0 then state.holders = state.holders + 1 end
      end
    end
  end
  state.arrival = math.max(state.arrival, now + state.out * interval)
  return state
end

local limits, short = {}, false
for i = 1, #KEYS - 1 do
  local at = 5 + (i - 1) * 8
  local function number(place) return tonumber(ARGV[at + place]) end
  local interval, count, need = number(1), number(2), number(3)
  local field = 'w:' .. worker .. ':' .. count .. '/' .. interval
  local s = read(KEYS[i], interval, field)
  if sequence <= s.seen then return {-1, now} end  -- arrived after one that was sent later
  s.field, s.step, s.need, s.queued, s.ahead, s.held = field, interval, need, number(4), number(5), number(6)
  if s.held >= 0 then
    local back = math.max(0, s.own - number(7) - s.held)
    s.arrival = math.max(now, s.arrival - back * interval)
    s.own = s.held
  end
  local full = now + interval * count
  s.arrival = math.max(s.arrival, math.min(s.arrival + number(8) * interval, full), now + (s.others + s.own) * interval)
  s.full = full
  s.room = math.floor((full - s.arrival) / interval)
  if s.room < need then short = true end
  limits[i] = s
end

local reply = {short and 0 or 1, now}
for i, s in ipairs(limits) do
  local queue, ahead = 0, 0
  if not short then
    queue = math.max(0, math.min(s.queued, s.room))
    local spare = s.queued > 0 and 0 or math.max(s.held, 0)
    local share = math.floor((s.room - queue) / (2 * math.max(n_workers, s.holders)))
    ahead = math.max(0, math.min(s.ahead, share) - spare)
    s.arrival = s.arrival + (queue + ahead) * s.step
    s.room = s.room - queue - ahead
    s.own = s.own + ahead  -- what the queue gets is spent now
  elseif s.room < s.need and s.others > 0 and now - s.recalled > 20000 then
    redis.call('XADD', KEYS[#KEYS], 'MAXLEN', '~', 256, '*', 'key', KEYS[i], 'by', s.field, 'at',
      string.format('%.0f', now))
    redis.call('PEXPIRE', KEYS[#KEYS], 60000)
    s.recalled = now
  end
  for _, lapsed in ipairs(s.lapsed) do redis.call('HDEL', KEYS[i], lapsed) end
  redis.call('HSET', KEYS[i], 't', string.format('%.0f', s.arrival), 'i', s.step, 'r',
    string.format('%.0f', s.recalled), s.field, string.format('%d:%.0f:%.0f', s.own, now + lease_us, sequence))
  local left = math.max(s.arrival - now, lease_us + (s.others + s.own) * s.step)
  redis.call('PEXPIRE', KEYS[i], string.format('%.0f', math.ceil(left / 1000) + 1000))
  local backlog = s.arrival - now
  local next_unit = backlog
  if s.arrival >= s.full then next_unit = s.arrival - s.full + s.step
  elseif backlog > 0 then
    next_unit = backlog % s.step
    if next_unit == 0 then next_unit = s.step end
  end
  reply[#reply + 1] = ahead
  reply[#reply + 1] = queue
  reply[#reply + 1] = s.room
  reply[#reply + 1] = next_unit
  reply[#reply + 1] = s.others
end
return reply
"""
