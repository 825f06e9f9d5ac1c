-- What the scripts of a user's index share, put before each of them. The index is a sorted set: a member a session,
-- its score the time in ms when the entry goes, negative where the session is doomed. The member "!" is the last
-- revocation, its score the time when that is forgotten. What is past its time goes first.
call('ZREMRANGEBYSCORE', key, '-' .. digits(now), digits(now))

local function score(member) return tonumber(call('ZSCORE', key, member) or nil) end

local function stay(member, at) -- at least until then
  call('ZADD', key, digits(math.max(at, score(member) or 0)), member)
end

local function doom(member, until_then) call('ZADD', key, '-' .. digits(until_then), member) end

local function keep() -- the key as long as its last member
  local first, last = call('ZRANGE', key, 0, 0, 'WITHSCORES'), call('ZRANGE', key, -1, -1, 'WITHSCORES')
  if last[2] then call('PEXPIREAT', key, digits(math.max(last[2], -first[2]))) end
end
