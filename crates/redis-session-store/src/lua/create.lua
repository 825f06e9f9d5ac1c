-- Write a new record, if nothing is at the key and the write is in time. The same create again answers as the first.
-- KEYS   1 session
-- ARGV   1 words: token, not_after, proof, own idle time in ms or "-", remember for so many ms or "-", idle, absolute,
--          touch
--        2… name, value, …
-- Reply  {key, "created", when} | {key, "exists"} | {key, "late", now}
local token, not_after, proof, own_idle, remember, idle, absolute, touch = words(8)
if call('EXISTS', key) == 1 then
  local record = parse(call('HGET', key, '@') or '')
  if record and place(record.tokens, token) then return {key, 'created', record.created} end
  return {key, 'exists'}
end
if now > tonumber(not_after) then return {key, 'late', now} end
local record = { proof = proof, tokens = token, created = now, seen = now, proved = now, idle = tonumber(own_idle) }
if remember ~= '-' then record.remembered = now + remember end
write(record, 2, idle, absolute, touch)
return {key, 'created', now}
