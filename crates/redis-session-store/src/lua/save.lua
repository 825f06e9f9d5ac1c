-- Save what changed, if the session lives, the write is in time, the proof holds and nobody moved the record.
-- KEYS   1 session
-- ARGV   1 words: token or "-" for a touch, earlier tokens in one word or "-", not_after, proof, base, "edit" or
--          "merge", step ("keep", "seen", "rotate", "renew", "login"), new proof or "-", "renews" or "-", own idle
--          time: ms, "-" none, "=" as it is, remember: likewise, in ms from now, idle, absolute, touch, limit in bytes,
--          "clear" or "-", how many are removed, how many are counted, level of a login, how long ago it arrived
--        2 user and 3 label of a login, then removed names, then name, increment, …, then name, value, …
-- Reply  {key, "gone" | "replaced" | "large" | "corrupt" | "logged in already"} | {key, "tombstone", reason and time}
--        | {key, "late", now} | {key, "saved", now, or when it ran before if it changed the proof, token before or ""}
--        | {key, "moved", the hash as it is} | {key, "refused", name}
local token, earlier, not_after, proof, base, mode, step, new_proof, renews, own_idle, remember, idle, absolute, touch,
  limit, clear, removed, counted, level, waited = words(20)
local first = step == 'login' and 4 or 2
local counts, sets = first + removed, first + removed + 2 * counted
local record, instead = find()
if not record then return instead end
if deadline(record, idle, absolute, touch) <= now then return {key, 'gone'} end
for own in string.gmatch(token .. ' ' .. earlier, '%S%S%S%S%S%S%S%S') do
  local at = place(record.tokens, own)
  local when = (step == 'rotate' or step == 'login') and record.proved or now
  local before = at and string.sub(record.tokens, at + 8, at + 15)
  if at then return keep(record, idle, absolute, touch, {key, 'saved', when, before}) end
end
local newest = string.sub(record.tokens, 1, 8)
if now > tonumber(not_after) then return {key, 'late', now} end
if proof ~= record.proof then
  if proof ~= record.previous or step == 'rotate' then return {key, 'replaced'} end
  if record.by == 'l' then
    local again = step == 'login' and ARGV[2] == record.user and now - waited - record.replaced < 60000
    return {key, again and 'logged in already' or 'replaced'}
  end
  if step == 'renew' and new_proof ~= record.proof then return {key, 'replaced'} end
end
if token ~= '-' and base ~= newest and (mode == 'edit' or not place(record.tokens, base)) then
  return {key, 'moved', call('HGETALL', key)}
end
local refused = count(counts, sets - 2)
if refused then return refused end
if base ~= newest and (clear ~= '-' or #ARGV >= first) then -- on its very base the client knows the size
  if size(clear ~= '-', first, counts, sets) > tonumber(limit) then return undo({key, 'large'}) end
end
remove(clear ~= '-', first, counts - 1)
if own_idle ~= '=' then record.idle = tonumber(own_idle) end
if remember ~= '=' then record.remembered = remember ~= '-' and now + remember or nil end
if step == 'seen' and proof == record.proof and record.by == 'r' then record.by, record.replaced = 's', now end
if step == 'renew' and new_proof ~= record.proof then
  record.by, record.previous, record.replaced, record.proof = 'r', record.proof, now, new_proof
end
if step == 'rotate' then record.replaced, record.proof, record.proved = nil, new_proof, now end
if step == 'login' then
  record.by, record.previous, record.replaced = 'l', record.proof, not record.user and now or nil
  record.proof, record.proved, record.created, record.seen = new_proof, now, now, now
  log_in(level, waited, ARGV[2], ARGV[3], record.user)
end
if token ~= '-' then record.tokens = token .. string.sub(record.tokens, 1, 24) end
if renews ~= '-' then record.seen = now end
write(record, sets, idle, absolute, touch)
return {key, 'saved', now, newest}
