-- Write a new record, if nothing is at the key and the write is in time. The same create again answers as the first.
-- KEYS   1 session
-- ARGV   1 words: token, not_after, proof, own idle time in ms or "-", remember for so many ms or "-", idle, absolute,
--          touch, level of the login or "-" for none, how long ago its request arrived
--        2 user and 3 label, where there is a login, then name, value, …
-- Reply  {key, "created", when} | {key, "exists"} | {key, "late", now}
local token, not_after, proof, own_idle, remember, idle, absolute, touch, level, waited = words(10)
if call('EXISTS', key) == 1 then
  local record = parse(call('HGET', key, '@') or '')
  if record and place(record.tokens, token) then
    return keep(record, idle, absolute, touch, {key, 'created', record.created})
  end
  return {key, 'exists'}
end
if now > tonumber(not_after) then return {key, 'late', now} end
local record = { proof = proof, tokens = token, created = now, seen = now, proved = now, idle = tonumber(own_idle) }
if remember ~= '-' then record.remembered = now + remember end
if level ~= '-' then log_in(level, waited, ARGV[2], ARGV[3]) end
write(record, level == '-' and 2 or 4, idle, absolute, touch)
return {key, 'created', now}
