# SPDX-License-Identifier: Apache-2.0
"""The gRPC health protocol (grpc.health.v1) for any server of ours: what each name's status is, its owner says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

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


class Statuses(Protocol):
    """What a process says of itself."""

    def status(self, name: str) -> int | None:
        """SERVING or NOT_SERVING, None when nobody knows `name`."""
        ...

    def names(self) -> Iterator[str]:
        """Every name there is."""
        ...

    def known(self) -> str:
        """The names for a person: comma separated, without the empty one."""
        ...


class HealthService:
    """Answers Check, List and Watch from `statuses`, which are asked at every probe."""

    def __init__(self, statuses: Statuses) -> None:
        self._statuses = statuses
        self._watchers: set[_Watch] = set()

    def changed(self) -> None:
        """Tell watchers whose status is another one now."""
        for watch in list(self._watchers):
            watch.tell()

    def services(self) -> Mapping[str, Service]:
        """What to register with a transport."""
        return {
            "/grpc.health.v1.Health/Check": lambda _metadata, reply: _Check(self._statuses, reply),
            "/grpc.health.v1.Health/List": lambda _metadata, reply: _List(self._statuses, reply),
            "/grpc.health.v1.Health/Watch": lambda _metadata, reply: _Watch(self._statuses, self._watchers, reply),
        }


class Readiness:
    """Health of a process that is ready as a whole or not at all: under the empty name, `READINESS` and that of its
    `service`. `LIVENESS` is always SERVING. `lacking` says why it is not ready, None when nothing is amiss."""

    def __init__(self, service: str, lacking: Callable[[], str | None] = lambda: None) -> None:
        self._names = (LIVENESS, READINESS, "", service)
        self._lacking = lacking
        self._draining = False
        self._service = HealthService(self)

    def drain(self) -> None:
        """From now on we are going away."""
        self._draining = True
        self._service.changed()

    def missing(self) -> str | None:
        """Why we are not ready."""
        return "stopping" if self._draining else self._lacking()

    def status(self, name: str) -> int | None:
        """The status of `name`, None when nobody knows it."""
        if name not in self._names:
            return None
        return SERVING if name == LIVENESS or self.missing() is None else NOT_SERVING

    def names(self) -> Iterator[str]:
        """Every name there is."""
        return iter(self._names)

    def known(self) -> str:
        """The names for a person."""
        return ", ".join(filter(None, self._names))

    def services(self) -> Mapping[str, Service]:
        """What to register with a transport."""
        return self._service.services()


class _Unary:
    """What the calls with one message have in common: the answer goes out with the message, and nothing is held."""

    def __init__(self, statuses: Statuses, reply: Reply) -> None:
        self._statuses = statuses
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
        status = self._statuses.status(name)
        if status is None:
            known = self._statuses.known()
            self._reply.finish(NOT_FOUND, f"unknown service {name!r}; known: {known} and the empty name")
            return
        self._reply.send(HealthCheckResponse(status=status).SerializeToString())
        self._reply.finish(OK)


class _List(_Unary):
    def message(self, data: bytes) -> None:
        out = HealthListResponse()
        for name in self._statuses.names():
            out.statuses[name].status = self._statuses.status(name) or NOT_SERVING
        self._reply.send(out.SerializeToString())
        self._reply.finish(OK)


class _Watch:
    def __init__(self, statuses: Statuses, watchers: set[_Watch], reply: Reply) -> None:
        self._statuses = statuses
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
        status = self._statuses.status(self._name or "")
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
