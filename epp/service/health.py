# SPDX-License-Identifier: Apache-2.0
"""The gRPC health protocol, for every name a probe of any release asks for.

    liveness                 always SERVING: restarting us mends nothing about the pool
    inference-extension      SERVING once discovery has synced, even with no endpoint ready
    "", the ext_proc service the same, where we are active: not standing by for another replica that leads
    readiness                the same, when there is something to pick
    pool/<namespace>/<name>  the same, when that pool has something to pick

inference-extension asks nothing of leadership. It is probed for liveness as well as readiness, by charts that mean one
replica: standbys must not be restarted for standing by, while two ready ones do no harm. (The Go EPP knows no such
name when it elects a leader.) While draining all but liveness say NOT_SERVING. Other names get NOT_FOUND. The same
answers are given on the health port (plaintext) and on the ext_proc port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from google.protobuf.message import DecodeError

from epp.protos.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListResponse
from epp.transport.call import INVALID_ARGUMENT, OK, Reply, Service

SERVING = 1
NOT_SERVING = 2
SERVICE_UNKNOWN = 3
NOT_FOUND = 5

LIVENESS = "liveness"
READINESS = "readiness"
_MISSING = "the request is missing"
EXTENSION = "inference-extension"
POOL = "pool/"
NAMES = (LIVENESS, READINESS, "", "envoy.service.ext_proc.v3.ExternalProcessor", EXTENSION)


class Health:
    """What we say of ourselves. `synced`, `pickable` and `active` are asked at every probe; call `changed` when they
    may have changed, so that watchers hear of it. `active` is False in a replica that stands by.

    * pool_ready: whether a pool, by `namespace/name`, has something to pick, None for strangers; pools: those names
    """

    def __init__(
        self,
        synced: Callable[[], bool],
        pickable: Callable[[], bool],
        active: Callable[[], bool] = lambda: True,
        pool_ready: Callable[[str], bool | None] = lambda _: None,
        pools: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._synced = synced
        self._pickable = pickable
        self._active = active
        self._pool_ready = pool_ready
        self._pools = pools
        self._draining = False
        self._watchers: set[_Watch] = set()

    @property
    def draining(self) -> bool:
        """Whether we are going away."""
        return self._draining

    def drain(self) -> None:
        """From now on we are going away."""
        self._draining = True
        self.changed()

    def status(self, name: str) -> int | None:
        """The status of `name`, None when nobody knows it."""
        if name == LIVENESS:
            return SERVING
        if name.startswith(POOL):
            ready = self._pool_ready(name.removeprefix(POOL))
            if ready is None:
                return None
            return SERVING if ready and self._active() and not self._draining else NOT_SERVING
        if name not in NAMES:
            return None
        serving = (
            not self._draining
            and self._synced()
            and (name != READINESS or self._pickable())
            and (name == EXTENSION or self._active())
        )
        return SERVING if serving else NOT_SERVING

    def names(self) -> Iterator[str]:
        """Every name there is."""
        yield from NAMES
        yield from self.names_of_pools()

    def names_of_pools(self) -> Iterator[str]:
        """Those of pools."""
        yield from [POOL + pool for pool in self._pools()]

    def changed(self) -> None:
        """Tell watchers whose status is another one now."""
        for watch in list(self._watchers):
            watch.tell()

    def services(self) -> Mapping[str, Service]:
        """What to register with a transport."""
        return {
            "/grpc.health.v1.Health/Check": lambda _metadata, reply: _Check(self, reply),
            "/grpc.health.v1.Health/List": lambda _metadata, reply: _List(self, reply),
            "/grpc.health.v1.Health/Watch": lambda _metadata, reply: _Watch(self, self._watchers, reply),
        }


class _Unary:
    """What the calls with one message have in common: the answer goes out with the message, and nothing is held."""

    def __init__(self, health: Health, reply: Reply) -> None:
        self._health = health
        self._reply = reply

    def half_closed(self) -> None:
        """No message came."""
        self._reply.finish(INVALID_ARGUMENT, _MISSING)

    def cancelled(self, reason: str) -> None:
        """Nothing is held."""


def _asked_name(data: bytes, reply: Reply) -> str | None:
    try:
        return HealthCheckRequest.FromString(data).service
    except DecodeError:
        reply.finish(INVALID_ARGUMENT, "not a HealthCheckRequest")
        return None


class _Check(_Unary):
    def message(self, data: bytes) -> None:
        name = _asked_name(data, self._reply)
        if name is None:
            return
        status = self._health.status(name)
        if status is None:
            pools = (f"{POOL}<namespace>/<name>",) if any(self._health.names_of_pools()) else ()
            known = ", ".join((*filter(None, NAMES), *pools))
            self._reply.finish(NOT_FOUND, f"unknown service {name!r}; known: {known} and the empty name")
            return
        self._reply.send(HealthCheckResponse(status=status).SerializeToString())
        self._reply.finish(OK)


class _List(_Unary):
    def message(self, data: bytes) -> None:
        out = HealthListResponse()
        for name in self._health.names():
            out.statuses[name].status = self._health.status(name) or NOT_SERVING
        self._reply.send(out.SerializeToString())
        self._reply.finish(OK)


class _Watch:
    def __init__(self, health: Health, watchers: set[_Watch], reply: Reply) -> None:
        self._health = health
        self._watchers = watchers
        self._reply = reply
        self._name: str | None = None
        self._told: int | None = None

    def message(self, data: bytes) -> None:
        self._name = _asked_name(data, self._reply)
        if self._name is None:
            self._watchers.discard(self)
            return
        self._watchers.add(self)
        self.tell()

    def tell(self) -> None:
        status = self._health.status(self._name or "")
        status = SERVICE_UNKNOWN if status is None else status
        if status != self._told:
            self._told = status
            self._reply.send(HealthCheckResponse(status=status).SerializeToString())

    def half_closed(self) -> None:
        """The watch goes on, if its one message has come."""
        if self._name is None:
            self._reply.finish(INVALID_ARGUMENT, _MISSING)

    def cancelled(self, reason: str) -> None:
        self._watchers.discard(self)
