-- What the scripts of sessions share, put before each of them: the packed field "@", who is logged in, the deadline.
-- "@" is `1 <tag> <proof> <tokens> <created> <seen> <proved> <idle> <remembered> <previous>`: times in ms, seen and
-- proved counted from created, "-" for what is not there; `<previous>` is a letter ("r" or "s": the proof before a
-- renewal, not seen yet or seen; "l": before a login), a proof and a time. "@user" is `<at> <arrived> <level> <user>`.
local function parse(meta) -- nil: not a record of this key
  local tag, proof, tokens, created, seen, proved, idle, remembered, previous =
    string.match(meta, '^1 (%S+) (%S+) (%S+) (%d+) (%d+) (%d+) ([%d-]+) ([%d-]+) (%S+)$')
  if not tag or tag ~= string.sub(key, -22, -17) then return nil end
  local by, before, replaced = string.match(previous, '^([rsl])(......................)(%d+)$')
  if not by and previous ~= '-' then return nil end
  return {
    proof = proof, tokens = tokens, created = tonumber(created), seen = created + seen, proved = created + proved,
    idle = tonumber(idle), remembered = tonumber(remembered), by = by, previous = before,
    replaced = replaced and created + replaced,
  }
end

local function find() -- the record, or else the reply that says what is there instead
  local meta, ended, login = unpack(call('HMGET', key, '@', '@ended', '@user'))
  if ended then return nil, {key, 'tombstone', ended} end
  if not meta then return nil, {key, call('EXISTS', key) == 1 and 'corrupt' or 'gone'} end
  local record = parse(meta)
  if not record or not login then return record, {key, 'corrupt'} end
  record.arrived, record.user = string.match(login, '^%d+ (%d+) %d+ (.+)$')
  return record.user and record, {key, 'corrupt'}
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

local function each(command, list, from, to) -- in parts, since Lua's stack holds 8,000
  for at = from, to, 4000 do call(command, key, unpack(list, at, math.min(at + 3999, to))) end
end

local function write(record, sets, idle, absolute, touch) -- the values from ARGV[sets] on, our own field, the TTL
  local created, previous = record.created, '-'
  if record.replaced then previous = record.by .. record.previous .. digits(record.replaced - created) end
  local meta = table.concat({
    '1', string.sub(key, -22, -17), record.proof, record.tokens, digits(created), digits(record.seen - created),
    digits(record.proved - created), digits(record.idle), digits(record.remembered), previous,
  }, ' ')
  call('HSET', key, '@', meta, unpack(ARGV, sets, math.min(sets + 3999, #ARGV)))
  each('HSET', ARGV, sets + 4000, #ARGV)
  call('PEXPIREAT', key, digits(deadline(record, idle, absolute, touch)))
end

local function log_in(level, waited, user, label, before) -- an empty label is the one that the same user has already
  call('HSET', key, '@user', table.concat({digits(now), digits(now - waited), level, user}, ' '))
  if label ~= '' then call('HSET', key, '@label', label) elseif before ~= user then call('HDEL', key, '@label') end
end
