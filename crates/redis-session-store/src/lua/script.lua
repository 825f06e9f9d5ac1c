-- What all scripts share, put before each of them: the clock, and the words of ARGV[1], each with a space after it.
local key, call = KEYS[1], redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function words(count) return string.match(ARGV[1], string.rep('(%S+) ', count)) end

local function digits(number) -- up to what the Rust side takes: 2^53 - 1
  return number and string.format('%.0f', math.max(0, math.min(number, 9007199254740991))) or '-'
end

