# SPDX-License-Identifier: Apache-2.0
"""Charges that wait for a store that is away: merged per counter, bounded, and dropped when their window is over."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from epp.contract.metering import Counter
from epp.ratelimit.ledger.script import Post

MOST_KEPT = 100_000


class Kept:
    """What is to be booked later. `uncounted` counts the amounts that are given up, by reason: `expired` (the window
    is over) or `overflow` (more counters than fit)."""

    def __init__(self, uncounted: Counter, most: int = MOST_KEPT) -> None:
        self._uncounted = uncounted
        self._most = most
        self._posts: dict[tuple[str, bool], Post] = {}

    def __len__(self) -> int:
        return len(self._posts)

    def keep(self, post: Post, now: float) -> None:
        """Keep a charge; nothing to do for one that only looks."""
        if not post.amount:
            return
        key = (post.key, post.refund)
        there = self._posts.get(key)
        if there:
            until_s = max(there.until_s, post.until_s)
            post = msgspec.structs.replace(post, amount=there.amount + post.amount, until_s=until_s)
        elif len(self._posts) >= self._most:
            self._drop_expired(now)
            if len(self._posts) >= self._most:
                self._uncounted.add(("overflow",), post.amount)
                return
        self._posts[key] = post

    def take(self, most: int, now: float) -> Sequence[Post]:
        """Up to `most` of them, the oldest first, and forget them here."""
        taken: list[Post] = []
        for key in list(itertools.islice(self._posts, most)):
            post = self._posts.pop(key)
            if post.until_s <= now:
                self._uncounted.add(("expired",), post.amount)
            else:
                taken.append(post)
        return taken

    def _drop_expired(self, now: float) -> None:
        for key in [key for key, post in self._posts.items() if post.until_s <= now]:
            self._uncounted.add(("expired",), self._posts.pop(key).amount)
