-- What a save does to the application's fields: counts, sizes, removals. Names that begin with "@" are our own.
local before = {} -- of what is counted: Redis keeps what a script has written when it gives up

local function reserved(name) return string.sub(name, 1, 1) == '@' end

local function undo(reply)
  for name, value in pairs(before) do call(unpack(value and {'HSET', key, name, value} or {'HDEL', key, name})) end
  return reply
end

local function count(from, to) -- name, increment, … in ARGV; answers the reply where one cannot be made
  for i = from, to, 2 do
    local name = ARGV[i]
    before[name] = call('HGET', key, name)
    if before[name] == '' then call('HDEL', key, name) end
    local count = redis.pcall('HINCRBY', key, name, ARGV[i + 1])
    if type(count) == 'table' then -- but for these two it is Redis that cannot write now
      local refused = string.find(count.err, 'not an integer') or string.find(count.err, 'overflow')
      return undo(refused and {key, 'refused', name} or count)
    end
  end
end

local function size(cleared, removes, counts, sets) -- of all fields after the save; the counts are made already
  local fields, size = {}, 0
  local hash = cleared and {} or call('HGETALL', key)
  for i = 1, #hash, 2 do fields[hash[i]] = not reserved(hash[i]) and hash[i + 1] or nil end
  for i = removes, counts - 1 do fields[ARGV[i]] = nil end
  for i = sets, #ARGV, 2 do fields[ARGV[i]] = ARGV[i + 1] end
  for name, value in pairs(fields) do size = size + #name + #value end
  return size
end

local function remove(cleared, from, to)
  for _, name in ipairs(cleared and call('HKEYS', key) or {}) do
    if not reserved(name) then call('HDEL', key, name) end
  end
  each('HDEL', ARGV, from, to)
end
