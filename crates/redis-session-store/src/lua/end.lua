-- Put a tombstone in the place of a record for a minute: why and when it ended, no data.
-- KEYS   1 session
-- ARGV   1 words: not_after, reason, proof or "-" whatever it is, then idle, absolute and touch: only if past its
--          deadline by these, or "-" each in any case
-- Reply  {key, "gone" | "replaced" | "alive" | "ended" | "corrupt"} | {key, "tombstone", reason and time}
--        | {key, "late", now}
local not_after, reason, proof, idle, absolute, touch = words(6)
local record, instead = find()
if not record then return instead end
if now > tonumber(not_after) then return {key, 'late', now} end
if proof ~= '-' and proof ~= record.proof then return {key, 'replaced'} end
if idle ~= '-' and deadline(record, idle, absolute, touch) > now then return {key, 'alive'} end
call('DEL', key)
call('HSET', key, '@ended', reason .. ' ' .. digits(now))
call('PEXPIRE', key, 60000)
return {key, 'ended'}
