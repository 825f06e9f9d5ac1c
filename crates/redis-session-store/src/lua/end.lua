-- Put a tombstone in the place of a record for a minute: why and when it ended, no data.
-- KEYS   1 session
-- ARGV   1 words: not_after, reason, "mark" to leave one also where there is nothing, whose: "nobody" and the proof,
--          "user" and "-", "arrived" and before when, "expired" and "-"; then, for "expired", idle, absolute and touch
--        2 the channel on which it is told   3 the user
-- Reply  {key, "gone" | "nobodys" | "others" | "alive" | "ended" | "corrupt"} | {key, "tombstone", reason and time}
--        | {key, "late", now}
local not_after, reason, mark, whose, by, idle, absolute, touch = words(8)
local record, instead = find()
local is_absent = instead[2] == 'gone'
if instead[2] == 'tombstone' then return keep_tombstone(instead) end
if not record and not is_absent then return instead end
if is_absent and mark ~= 'mark' then return instead end
if now > tonumber(not_after) then return {key, 'late', now} end
if record then
  if whose == 'nobody' and (record.user or record.proof ~= by) then return {key, 'others'} end
  if (whose == 'user' or whose == 'arrived') and not record.user then return {key, 'nobodys'} end
  if whose == 'user' and record.user ~= ARGV[3] then return {key, 'others'} end
  if whose == 'arrived' and tonumber(record.arrived) >= tonumber(by) then return {key, 'others'} end
  if whose == 'expired' and deadline(record, idle, absolute, touch) > now then return {key, 'alive'} end
end
call('DEL', key)
call('HSET', key, '@ended', reason .. ' ' .. digits(now))
call('PEXPIRE', key, 60000)
redis.pcall('PUBLISH', ARGV[2], key) -- who may not publish is heard of later, when those who wait look by themselves
return {key, is_absent and 'gone' or 'ended'}
