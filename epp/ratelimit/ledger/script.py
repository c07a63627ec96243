# SPDX-License-Identifier: Apache-2.0
"""One batch of charges as one Lua script: one round trip, all or nothing, and never twice.

The arithmetic is that of the library `limits`: its own scripts are functions inside this one. Around them is what they
lack. Batches of one ledger are numbered, and the store remembers the last number it took: the same batch, sent again
because nobody knows whether its answer got lost before or after, is read only. That also holds for a batch that a
broken connection delivers late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from limits.aio.storage.redis.bridge import RedisBridge

from epp.ratelimit.ledger.windows import OUT_OF_REACH

REMEMBERED_S = 86_400
"""How long the store remembers the last batch of a ledger; a batch in doubt for longer is given up."""

_FRAME = """
local function incr(KEYS, ARGV) @incr@ end
local function acquire(KEYS, ARGV) @acquire@ end
local function window(KEYS, ARGV) @window@ end
local function refund(key, amount)
  local old = tonumber(redis.call('get', key))
  if not old then return 0 end
  local new = math.max(0, old - amount)
  redis.call('set', key, string.format('%.0f', new), 'KEEPTTL')
  return new
end
local function fixed(i, op, amount, seconds)
  local key = KEYS[1 + i]
  if op == '+' then return incr({key}, {seconds, amount}) end
  if op == '-' then return refund(key, tonumber(amount)) end
  return tonumber(redis.call('get', key) or 0) or error('no counter')
end
local function sliding(i, op, amount, seconds)
  local keys = {KEYS[2 * i], KEYS[2 * i + 1]}
  if op == '+' then acquire(keys, {'@limit@', seconds, amount}) end
  local now = window(keys, {seconds})
  if op == '-' then
    refund(keys[2], tonumber(amount))
    now = window(keys, {seconds})
  end
  return {now[1] or 0, now[2] or 0, now[3] or 0, now[4] or 0}
end
local number = tonumber(ARGV[1])
local fresh = number > (tonumber(redis.call('get', KEYS[1])) or 0)
local count = ARGV[2] == 'fixed' and fixed or sliding
if fresh then redis.call('set', KEYS[1], ARGV[1], 'EX', ARGV[3]) end
local answers = {}
for i = 1, (#ARGV - 3) / 3 do
  local at = 3 * i + 1
  local done, answer = pcall(count, i, fresh and ARGV[at] or '?', ARGV[at + 1], ARGV[at + 2])
  answers[i] = done and answer
end
return answers
"""


class Post(msgspec.Struct, frozen=True, gc=False):
    """A charge, ready to be booked: on `key`, which names the window too where windows are fixed.

    * seconds: after how many a new counter expires (fixed), the length of the window (sliding)
    * until_s: Unix time from which booking it would be pointless
    """

    key: str
    amount: int
    refund: bool
    seconds: int
    until_s: int


def source() -> str:
    """The script."""
    parts: dict[str, str | bytes] = {
        "@incr@": RedisBridge.SCRIPT_INCR_EXPIRE,
        "@acquire@": RedisBridge.SCRIPT_ACQUIRE_SLIDING_WINDOW,
        "@window@": RedisBridge.SCRIPT_SLIDING_WINDOW,
        "@limit@": str(OUT_OF_REACH),
    }
    text = _FRAME
    for name, part in parts.items():
        text = text.replace(name, part if isinstance(part, str) else part.decode())
    return text


def arguments(
    number: int, seen_key: str, posts: Sequence[Post], sliding: bool, prefixed: Callable[[str], str]
) -> tuple[list[str], list[str | int]]:
    """KEYS and ARGV of a batch. `number` 0: nothing is booked, only read."""
    keys = [seen_key]
    args: list[str | int] = [number, "sliding" if sliding else "fixed", REMEMBERED_S]
    for post in posts:
        if sliding:
            # As the library's storage names them; the braces keep both on one node.
            keys += (prefixed(f"{{{post.key}}}/-1"), prefixed(f"{{{post.key}}}"))
        else:
            keys.append(prefixed(post.key))
        args += (("-" if post.refund else "+") if post.amount else "?", post.amount, post.seconds)
    return keys, args
