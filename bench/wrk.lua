-- Load for wrk: whole requests read from files, rotated; answers are counted, one JSON line at the end.
-- Arguments: file of warm requests, file of cold ones (or "-"), every how manieth request is a cold one (0: none).

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

local function read(path)
  local requests, file = {}, assert(io.open(path, "rb"))
  while true do
    local size = file:read("*n")
    if not size then break end
    file:read(1)
    requests[#requests + 1] = file:read(size)
  end
  file:close()
  return requests
end

local warm, cold, cold_every = {}, {}, 0
local n_warm, n_cold = 0, 0
sent, ran_out = 0, 0  -- global: done() reads them through thread:get

function init(args)
  warm = read(args[1])
  if args[2] ~= "-" then cold = read(args[2]) end
  cold_every = tonumber(args[3])
  n_warm, n_cold = #warm, #cold
end

function request()
  sent = sent + 1
  if cold_every > 0 and sent % cold_every == 0 then
    local turn = sent / cold_every
    if turn <= n_cold then return cold[turn] end
    ran_out = ran_out + 1
  end
  return warm[sent % n_warm + 1]
end

function done(summary, latency, requests)
  local out_of_cold = 0
  for _, thread in ipairs(threads) do out_of_cold = out_of_cold + thread:get("ran_out") end
  local e = summary.errors
  io.write(string.format(
    '\n@@{"n": %d, "duration_us": %d, "p50_us": %g, "p99_us": %g, "max_us": %g, "ran_out": %d, ' ..
    '"failed": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max, out_of_cold,
    e.connect, e.read, e.write, e.status, e.timeout))
end
