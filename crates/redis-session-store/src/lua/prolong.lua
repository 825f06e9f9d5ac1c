-- Prolong the entry of a living session, in step with the session.
-- KEYS   1 index of the user
-- ARGV   1 words: session, how long the entry stays in ms, "add" to write it where there is none or "-", not_after
-- Reply  {key, "late" | "doomed" | "missing" | "prolonged"}
local session, life, add, not_after = words(4)
if now > tonumber(not_after) then return {key, 'late'} end
local before = score(session)
if before and before < 0 then return {key, 'doomed'} end
if not before and add == '-' then return {key, 'missing'} end
stay(session, now + life)
keep()
return {key, 'prolonged'}
