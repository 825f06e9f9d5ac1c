-- Write the entry of a session that is about to be logged in, and doom those that are too many with it.
-- KEYS   1 index of the user
-- ARGV   1 words: session, how long the entry stays in ms, cap or "-", age in ms of what the login relies on, the entry
--          of a try before or "-", not_after
-- Reply  {key, "late" | "revoked" | "doomed"} | {key, "entered", ms since the revocation or "", doomed sessions…}
local session, life, cap, age, instead_of, not_after = words(6)
if now > tonumber(not_after) then return {key, 'late'} end
if instead_of ~= '-' then call('ZREM', key, instead_of) end
local revoked = score('!')
local since = revoked and now - (revoked - 120000)
if since and since <= tonumber(age) then return {key, 'revoked'} end
if (score(session) or 0) < 0 then return {key, 'doomed'} end
stay(session, now + life)
if cap ~= '-' then
  local listed = {}
  for _, other in ipairs(call('ZRANGEBYSCORE', key, 0, '+inf')) do
    if other ~= session and other ~= '!' then listed[#listed + 1] = other end
  end
  for i = 1, #listed + 1 - math.max(cap, 1) do doom(listed[i], score(listed[i])) end
end
keep()
return {key, 'entered', since or '', unpack(call('ZRANGEBYSCORE', key, '-inf', '(0', 'LIMIT', 0, 4000))}
