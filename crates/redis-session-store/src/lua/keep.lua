-- What scripts share that may find their own work done: they write what is there already. `WAIT` counts from the last
-- write of its connection (before Redis 7.2: from the last command), and an earlier copy may have run on another one.
local function keep(record, idle, absolute, touch, reply)
  call('PEXPIREAT', key, digits(deadline(record, idle, absolute, touch)))
  return reply
end

local function keep_tombstone(reply)
  local at = string.match(reply[3], '%d+$')
  if at then call('PEXPIREAT', key, digits(at + 60000)) end
  return reply
end

