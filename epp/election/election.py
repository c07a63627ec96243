# SPDX-License-Identifier: Apache-2.0
"""Leader election over a Lease, by the rules of client-go's `leaderelection`, on the same object.

Leading. Every clock here is our own; the times in the record are for people. The record counts as alive for its
duration (15 s) after we saw it change, then it may be taken, with the resource version we read: of two takers one gets
409. The holder writes it every 2 s, and leads until 10 s after it *sent* its last successful write. Another saw that
write after it was sent, and waits 15 s from there: so leading ends at least 5 s before anybody else may begin, whatever
became of answers, as long as no clock runs half as fast again as another. (client-go counts from the answer, plus a
pause; with slow answers that can be too late.) `leading` asks the clock whenever it is read: a process that was
stopped for a minute does not lead for one instruction after it wakes.

Being active is another thing. It is what readiness says, and it need not be exclusive: an ext_proc answer of any
replica is right, and one active replica at a time only keeps one picture of load and caches. So an error may make two
replicas active, but must never make none. A replica stands by only while it believes in a leader that is not itself:

* Seen in the record, alive by our clock: believed, renewed with every read.
* The API server cannot be asked: belief lasts `isolated_s` (60 s), then we become active too. For a minute the
  likeliest reading is that the API server is away and the leader well, and a second active replica would cost cache
  hits. Beyond it, the leader may have died unseen, and then a standby that waits for the API server is an outage.
* Cut off as the leader: leading ends, being active does not, until another holder is *seen*. If all are cut off, the
  last leader so answers for as long as it takes. If it alone is, another takes over, and two are active until it hears.
* The API server refuses (403, 401, a name it does not accept) and nobody was seen to hold the lease: active. A role
  without leases is the role of all replicas, so each is active: that is running without election, and it is said.
* At the start a leader is believed in, unseen: a new replica asks first.

No Events are made; roles do not grant them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from epp.election.record import Lease, given_up, held, new_lease
from epp.kube.errors import ApiError, Conflict, Forbidden, Missing, TooMany, Unreachable
from epp.kube.resource import LEASES, Resource

log = logging.getLogger("epp.election")

T = TypeVar("T")

WHAT = "leader-election"
"""The matter that `tell` hears about."""

_SOON_S = 0.05
_WAITED_TOO_LONG = 408


class Leases(Protocol):
    """What an election asks of the API server; failures are `ApiError`."""

    async def read(self, resource: Resource, namespace: str, name: str, decode: type[T]) -> T:
        """GET."""

    async def create(self, resource: Resource, namespace: str | None, body: Any, decode: type[T]) -> T:
        """POST; `Conflict` if it is there."""

    async def replace(self, resource: Resource, namespace: str, name: str, body: Any, decode: type[T]) -> T:
        """PUT; `Conflict` if it changed since it was read."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The first four are what every client-go election of this kind uses: lease_s > renew_s > retry_s.

    * lease_s: how long a record that does not change counts as alive; whole seconds
    * renew_s: how long after its last renewal the holder leads
    * retry_s, jitter: the pause between renewals; a candidate's is longer by a random part of up to `jitter`
    * request_s: how long one answer of the API server may take; two must fit into renew_s
    * refused_s: the least pause after a refusal
    * isolated_s: how long an unseen leader is believed in
    """

    lease_s: int = 15
    renew_s: float = 10.0
    retry_s: float = 2.0
    jitter: float = 1.2
    request_s: float = 5.0
    refused_s: float = 10.0
    isolated_s: float = 60.0


class Election:
    """One candidate: `identity`, for the lease `namespace`/`name`. `run` and `release` are its life.

    `clock` is monotonic, in seconds; `wall` is for the times people read in the record.
    """

    def __init__(
        self,
        api: Leases,
        namespace: str,
        name: str,
        identity: str,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        tell: Callable[[str, str | None], None],
        wall: Callable[[], float] = time.time,
        timing: Timing = Timing(),
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self._tell = tell
        self._timing = timing
        self._seen: Lease | None = None
        self._changed_s = self._answered_s = clock()
        self._leads_until_s = -math.inf
        self._believes_until_s = clock() + timing.isolated_s
        # Whether the last record we read or wrote was not another's; without any there is nobody to wait for.
        self._free = True
        self._may_hold = False
        self._released = False
        self._trouble: object = None
        self._busy = asyncio.Lock()
        self._look = asyncio.Event()

    @property
    def leading(self) -> bool:
        """Whether we hold the lease now; of all candidates at most one does."""
        return not self._released and self._clock() < self._leads_until_s

    @property
    def active(self) -> bool:
        """Whether requests should come to us: we lead, or believe in nobody else who does."""
        return not self._released and (self.leading or self._clock() >= self._believes_until_s)

    @property
    def holder(self) -> str:
        """Who held the lease when it was last seen; "" for nobody."""
        return self._seen.holder if self._seen is not None else ""

    async def run(self, changed: Callable[[bool], None]) -> None:
        """Contend until `release`, whatever the API server does. `changed` hears `active` when it is another one; it
        begins as False. Of the release it hears nothing: who calls that knows."""
        told = led = False
        while not self._released:
            async with self._busy:
                error = None if self._released else await self._attempt()
            if self._released:
                return
            self._report(error)
            if self.leading != led:
                led = not led
                log.info("%s lease %s/%s", "leading: holding" if led else "no longer leading by", *self._place)
            if self.active != told:
                told = not told
                changed(told)
            await self._pause(self._pause_s(error))

    def look(self) -> None:
        """Somebody who watches saw that the lease is free: ask now, not at the next turn."""
        self._look.set()

    async def release(self) -> None:
        """Stop being active, for good, and let another lead at once. At most `request_s`; never raises for the API."""
        self._released = True
        try:
            async with asyncio.timeout(self._timing.request_s), self._busy:
                while self._may_hold and not await self._gave_up():
                    pass
        except (ApiError, TimeoutError) as error:
            reason = str(error) or "no answer"
            log.warning("lease %s/%s was not given up (%s): it ends %d s from its last renewal",
                        *self._place, reason, self._timing.lease_s)  # fmt: skip

    @property
    def _place(self) -> tuple[str, str]:
        return self._namespace, self._name

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._look.wait()
        self._look.clear()

    async def _gave_up(self) -> bool:
        """Whether the lease is not ours any more; False if somebody wrote at the same time."""
        try:
            lease = await self._api.read(LEASES, *self._place, Lease)
            if lease.holder == self._identity:
                await self._api.replace(LEASES, *self._place, given_up(lease, self._wall()), Lease)
                log.info("gave up lease %s/%s", *self._place)
        except Conflict:
            return False
        self._may_hold = False
        return True

    async def _attempt(self) -> ApiError | None:
        """Renew, or take the lease if it may be taken; returns what the API server had against it."""
        try:
            await self._renew_or_take()
        except TimeoutError:
            return Unreachable(f"no answer about lease {self._namespace}/{self._name} in {self._timing.request_s:g} s")
        except ApiError as error:
            if self._free and _refused(error):
                self._believes_until_s = -math.inf
            return error
        self._answered_s = self._clock()
        return None

    async def _renew_or_take(self) -> None:
        if self.leading and self._seen is not None:
            try:
                return await self._write(self._seen)
            except (Conflict, Missing):
                # Somebody wrote, or a write of ours arrived whose answer did not: the record tells which.
                pass
        try:
            lease = await self._answer(self._api.read(LEASES, *self._place, Lease))
        except Missing:
            return await self._create()
        self._observe(lease)
        if not self._free:
            return self._stand_by()
        try:
            return await self._write(lease)
        except (Conflict, Missing):
            return self._stand_by()

    async def _answer(self, answer: Awaitable[T]) -> T:
        async with asyncio.timeout(self._timing.request_s):
            return await answer

    async def _create(self) -> None:
        self._seen = None
        sent_s = self._clock()
        lease = new_lease(*self._place, self._identity, self._timing.lease_s, self._wall())
        self._may_hold = True
        try:
            created = await self._answer(self._api.create(LEASES, self._namespace, lease, Lease))
        except Conflict:
            return self._stand_by()
        return self._hold(created, sent_s)

    async def _write(self, lease: Lease) -> None:
        sent_s = self._clock()
        mine = held(lease, self._identity, self._timing.lease_s, self._wall())
        self._may_hold = True
        self._hold(await self._answer(self._api.replace(LEASES, *self._place, mine, Lease)), sent_s)

    def _hold(self, lease: Lease, sent_s: float) -> None:
        self._seen, self._changed_s, self._free = lease, self._clock(), True
        self._leads_until_s = sent_s + self._timing.renew_s
        self._believes_until_s = -math.inf

    def _stand_by(self) -> None:
        self._free = False
        self._leads_until_s = -math.inf
        self._believes_until_s = self._clock() + self._timing.isolated_s

    def _observe(self, lease: Lease) -> None:
        if self._seen is None or lease.spec != self._seen.spec:
            self._changed_s = self._clock()
        if lease.holder not in (self.holder, self._identity, ""):
            log.info("standby: lease %s/%s is held by %s", *self._place, lease.holder)
        self._seen = lease
        self._free = lease.holder in ("", self._identity) or self._left_s() <= 0

    def _left_s(self) -> float:
        """How long the record counts as alive, as the one who wrote it says."""
        stated_s = self._seen.spec.lease_duration_seconds if self._seen is not None else None
        return self._changed_s + (stated_s or self._timing.lease_s) - self._clock()

    def _pause_s(self, error: ApiError | None) -> float:
        timing = self._timing
        if self.leading:
            return timing.retry_s
        pause_s = timing.retry_s * (1 + timing.jitter * self._rng.random())
        if isinstance(error, TooMany):
            return max(pause_s, min(error.retry_after_s, timing.isolated_s))
        if error is not None:
            return max(pause_s, timing.refused_s) if _refused(error) else pause_s
        # A lease that runs out is taken when it does, not at the next turn.
        return min(pause_s, max(self._left_s(), _SOON_S))

    def _report(self, error: ApiError | None) -> None:
        """Say once what is wrong, and what follows from it. One lost answer is not worth a line."""
        if error is None:
            self._trouble = None
            return self._tell(WHAT, None)
        refused = _refused(error)
        if not refused and self._clock() - self._answered_s < self._timing.renew_s:
            return None
        trouble = type(error), self.active
        if trouble == self._trouble:
            return None
        self._trouble = trouble
        verbs = f"an election takes get, create and update on {LEASES} in namespace {self._namespace}"
        remedy = verbs if isinstance(error, Forbidden) else ""
        if not self.active:
            follows = f"standing by for {self._timing.isolated_s:g} s at most, then ready without a lease"
        elif self._identity == self.holder:
            follows = "still ready, as the last holder of the lease"
        else:
            follows = "ready without a lease, as other replicas may be"
        return self._tell(WHAT, "; ".join(part for part in (str(error), remedy, follows) if part))


def _refused(error: ApiError) -> bool:
    """Whether asking again will not help until somebody changes a role, a token or a name."""
    return 400 <= error.status < 500 and error.status != _WAITED_TOO_LONG and not isinstance(error, Conflict | TooMany)
