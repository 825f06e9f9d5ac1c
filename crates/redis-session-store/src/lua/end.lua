-- Put a tombstone in the place of a record for a minute: why and when it ended, no data.
-- KEYS   1 session
-- ARGV   1 not_after   2 reason   3 proof, "" whatever it is
--        4 idle, 5 absolute, 6 touch: only if past its deadline by these; 4 "" in any case
-- Reply  {key, "gone" | "replaced" | "alive" | "ended" | "corrupt"} | {key, "tombstone", reason and time}
--        | {key, "late", now}
local not_after, reason, proof, idle, absolute, touch = unpack(ARGV, 1, 6)
local record, instead = find()
if not record then return instead end
if now > tonumber(not_after) then return {key, 'late', now} end
if proof ~= '' and proof ~= record.proof then return {key, 'replaced'} end
if idle ~= '' and deadline(record, idle, absolute, touch) > now then return {key, 'alive'} end
call('DEL', key)
call('HSET', key, '@ended', reason .. ' ' .. digits(now))
call('PEXPIRE', key, 60000)
return {key, 'ended'}
