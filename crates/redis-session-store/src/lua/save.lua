-- Save what changed, if the session lives, the write is in time, the proof holds and nobody moved the record.
-- KEYS   1 session
-- ARGV   1 words: token or "-" for a touch, earlier tokens in one word or "-", not_after, proof, base, "edit" or
--          "merge", new proof or "-", own idle time: ms, "-" none, "=" as it is, remember: likewise, in ms from now,
--          idle, absolute, touch, limit in bytes, "clear" or "-", how many are removed, how many are counted
--        2… removed names, then name, increment, …, then name, value, …
-- Reply  {key, "gone" | "replaced" | "large" | "corrupt"} | {key, "tombstone", reason and time} | {key, "late", now}
--        | {key, "saved", now, token before or ""} | {key, "moved", the hash as it is} | {key, "refused", name}
local token, earlier, not_after, proof, base, mode, new_proof, own_idle, remember, idle, absolute, touch, limit, clear,
  removed, counted = words(16)
local counts, sets = 2 + removed, 2 + removed + 2 * counted
local record, instead = find()
if not record then return instead end
if deadline(record, idle, absolute, touch) <= now then return {key, 'gone'} end
for own in string.gmatch(token .. ' ' .. earlier, '%S%S%S%S%S%S%S%S') do
  local at = place(record.tokens, own)
  if at then return {key, 'saved', now, string.sub(record.tokens, at + 8, at + 15)} end
end
local newest = string.sub(record.tokens, 1, 8)
if now > tonumber(not_after) then return {key, 'late', now} end
if proof ~= record.proof then return {key, 'replaced'} end
if token ~= '-' and base ~= newest and (mode == 'edit' or not place(record.tokens, base)) then
  return {key, 'moved', call('HGETALL', key)}
end
local before = {} -- of what is counted: Redis keeps what a script has written when it gives up
local function undo(reply)
  for name, value in pairs(before) do call(unpack(value and {'HSET', key, name, value} or {'HDEL', key, name})) end
  return reply
end
for i = counts, sets - 2, 2 do
  local name = ARGV[i]
  before[name] = call('HGET', key, name)
  if before[name] == '' then call('HDEL', key, name) end
  local count = redis.pcall('HINCRBY', key, name, ARGV[i + 1])
  if type(count) == 'table' then -- but for these two it is Redis that cannot write now
    local refused = string.find(count.err, 'not an integer') or string.find(count.err, 'overflow')
    return undo(refused and {key, 'refused', name} or count)
  end
end
if base ~= newest and (clear ~= '-' or #ARGV > 1) then -- on its very base the client knows the size
  local fields, size = {}, 0
  local hash = clear == '-' and call('HGETALL', key) or {}
  for i = 1, #hash, 2 do fields[hash[i]] = not reserved(hash[i]) and hash[i + 1] or nil end
  for i = 2, counts - 1 do fields[ARGV[i]] = nil end
  for i = sets, #ARGV, 2 do fields[ARGV[i]] = ARGV[i + 1] end
  for name, value in pairs(fields) do size = size + #name + #value end
  if size > tonumber(limit) then return undo({key, 'large'}) end
end
if clear ~= '-' then
  for _, name in ipairs(call('HKEYS', key)) do if not reserved(name) then call('HDEL', key, name) end end
end
each('HDEL', ARGV, 2, counts - 1)
if own_idle ~= '=' then record.idle = tonumber(own_idle) end
if remember ~= '=' then record.remembered = remember ~= '-' and now + remember or nil end
if new_proof ~= '-' then record.proof, record.proved = new_proof, now end
if token ~= '-' then record.tokens = token .. string.sub(record.tokens, 1, 24) end
record.seen = now
write(record, sets, idle, absolute, touch)
return {key, 'saved', now, newest}
