-- Mark sessions that are about to be ended, so that logins and touches under way find out.
-- KEYS   1 index of the user
-- ARGV   1 words: "only", "but" or "all", session or "-", not_after
-- Reply  {key, "late" | "yourself" | "missing"} | {key, "doomed", sessions to be ended…}
local which, session, not_after = words(3)
if now > tonumber(not_after) then return {key, 'late'} end
local named = score(session)
if which ~= 'all' and not named then return {key, 'missing'} end
if which == 'but' and named < 0 then return {key, 'yourself'} end
local reply = {key, 'doomed'} -- in place, since Lua's stack holds 8,000
for _, one in ipairs(which == 'only' and {session} or call('ZRANGE', key, 0, -1)) do
  if one ~= '!' and not (which == 'but' and one == session) then
    reply[#reply + 1] = one
    doom(one, math.abs(score(one)))
  end
end
if which ~= 'only' then stay('!', now + 120000) end
keep()
return reply
