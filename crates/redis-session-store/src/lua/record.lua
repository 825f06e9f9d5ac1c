-- What the scripts share, put before each of them: the clock, the words of ARGV[1] (each with a space after it), the
-- packed field "@", the deadline. "@" is `1 <tag> <proof> <tokens> <created> <seen> <proved> <idle> <remembered>`:
-- times in ms, seen and proved counted from created. "-" is what is not there. Nothing is written by this part.
local key, call = KEYS[1], redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function words(count) return string.match(ARGV[1], string.rep('(%S+) ', count)) end

local function digits(number) -- up to what the Rust side takes: 2^53 - 1
  return number and string.format('%.0f', math.max(0, math.min(number, 9007199254740991))) or '-'
end

local function parse(meta) -- nil: not a record of this key
  local tag, proof, tokens, created, seen, proved, idle, remembered =
    string.match(meta, '^1 (%S+) (%S+) (%S+) (%d+) (%d+) (%d+) ([%d-]+) ([%d-]+)$')
  if tag ~= string.sub(key, -22, -17) then return nil end
  return {
    proof = proof, tokens = tokens, created = tonumber(created), seen = created + seen, proved = created + proved,
    idle = tonumber(idle), remembered = tonumber(remembered),
  }
end

local function find() -- the record, or else the reply that says what is there instead
  local meta, ended = unpack(call('HMGET', key, '@', '@ended'))
  if ended then return nil, {key, 'tombstone', ended} end
  if not meta then return nil, {key, call('EXISTS', key) == 1 and 'corrupt' or 'gone'} end
  return parse(meta), {key, 'corrupt'}
end

local function deadline(record, idle, absolute, touch)
  if record.remembered then return record.remembered end
  local own = math.min(record.idle or idle, 34560000000) -- 400 days
  return math.min(record.seen + own + math.min(touch, math.floor(own / 10)), record.created + absolute)
end

local function place(tokens, token) -- where among the last four
  for at = 1, #tokens, 8 do
    if string.sub(tokens, at, at + 7) == token then return at end
  end
end

local function reserved(name) return string.sub(name, 1, 1) == '@' end

local function each(command, list, from, to) -- in parts, since Lua's stack holds 8,000
  for at = from, to, 4000 do call(command, key, unpack(list, at, math.min(at + 3999, to))) end
end

local function write(record, sets, idle, absolute, touch) -- the values from ARGV[sets] on, our own field, the TTL
  local created = record.created
  local seen, proved = digits(record.seen - created), digits(record.proved - created)
  local meta = table.concat({
    '1', string.sub(key, -22, -17), record.proof, record.tokens, digits(created), seen, proved, digits(record.idle),
    digits(record.remembered),
  }, ' ')
  call('HSET', key, '@', meta, unpack(ARGV, sets, math.min(sets + 3999, #ARGV)))
  each('HSET', ARGV, sets + 4000, #ARGV)
  call('PEXPIREAT', key, digits(deadline(record, idle, absolute, touch)))
end
