# SPDX-License-Identifier: Apache-2.0
"""The gRPC health protocol, as a transport drives it; over real gRPC in tests/e2e/test_clients.py."""

from __future__ import annotations

import pytest

from epp.protos.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse
from epp.service.health import Health
from epp.transport.call import INVALID_ARGUMENT, OK, Call, Metadata
from epp.transport.health import NOT_SERVING, SERVING

EXT_PROC = "envoy.service.ext_proc.v3.ExternalProcessor"
NAMES = ("", EXT_PROC, "inference-extension", "readiness", "liveness")
NOT_FOUND = 5
STATUS = {1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


class Peer:
    """What a client hears."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.end: tuple[int, str] | None = None

    def send(self, message: bytes) -> None:
        assert self.end is None
        self.messages.append(message)

    def finish(self, status: int = OK, message: str = "") -> None:
        assert self.end is None
        self.end = status, message

    @property
    def heard(self) -> list[str]:
        return [STATUS[HealthCheckResponse.FromString(message).status] for message in self.messages]


class World:
    """A `Health` and the things it asks."""

    def __init__(self, synced: bool = True, pickable: bool = True, active: bool = True) -> None:
        self.synced, self.pickable, self.active = synced, pickable, active
        self.health = Health(lambda: self.synced, lambda: self.pickable, lambda: self.active)

    def call(self, method: str) -> tuple[Call, Peer]:
        peer = Peer()
        path = f"/grpc.health.v1.Health/{method}"
        return self.health.services()[path](Metadata(path), peer), peer

    def check(self, name: str) -> str | tuple[int, str]:
        call, peer = self.call("Check")
        call.message(HealthCheckRequest(service=name).SerializeToString())
        assert peer.end is not None
        return peer.heard[0] if peer.end == (OK, "") else peer.end

    def watch(self, name: str) -> tuple[Call, Peer]:
        call, peer = self.call("Watch")
        call.message(HealthCheckRequest(service=name).SerializeToString())
        call.half_closed()
        return call, peer


@pytest.mark.parametrize(
    ("synced", "pickable", "active", "draining", "serving"),
    [
        (False, False, True, False, {"liveness"}),
        (True, False, True, False, {"", EXT_PROC, "inference-extension", "liveness"}),
        (True, True, True, False, set(NAMES)),
        (True, True, True, True, {"liveness"}),
        (False, True, True, False, {"liveness"}),
        (True, True, False, False, {"liveness", "inference-extension"}),
        (True, False, False, False, {"liveness", "inference-extension"}),
        (False, True, False, False, {"liveness"}),
        (True, True, False, True, {"liveness"}),
    ],
)
def test_every_name(synced: bool, pickable: bool, active: bool, draining: bool, serving: set[str]) -> None:
    world = World(synced, pickable, active)
    if draining:
        world.health.drain()
    expected = {name: "SERVING" if name in serving else "NOT_SERVING" for name in NAMES}
    assert {name: world.check(name) for name in NAMES} == expected
    call, peer = world.call("List")
    call.message(HealthListRequest().SerializeToString())
    listed = HealthListResponse.FromString(peer.messages[0]).statuses
    assert {n: STATUS[s.status] for n, s in listed.items()} == expected
    assert peer.end == (OK, "")


def test_an_unknown_name_is_told_the_known_ones() -> None:
    status, message = World().check("vllm")
    assert status == NOT_FOUND
    assert (
        message
        == f"unknown service 'vllm'; known: liveness, readiness, {EXT_PROC}, inference-extension and the empty name"
    )


def test_a_watcher_hears_changes_alone() -> None:
    world = World(synced=False, pickable=False)
    _, peer = world.watch("readiness")
    world.health.changed()
    world.synced = True
    world.health.changed()
    world.pickable = True
    world.health.changed()
    world.health.changed()
    world.health.drain()
    assert peer.heard == ["NOT_SERVING", "SERVING", "NOT_SERVING"]
    assert peer.end is None


def test_a_watcher_hears_of_a_hand_over() -> None:
    world = World(active=False)
    _, peer = world.watch("readiness")
    world.active = True
    world.health.changed()
    world.active = False
    world.health.changed()
    assert peer.heard == ["NOT_SERVING", "SERVING", "NOT_SERVING"]


def test_without_an_election_everybody_is_active() -> None:
    health = Health(lambda: True, lambda: True)
    assert {health.status(name) for name in NAMES} == {1}


def test_an_unknown_name_can_be_watched() -> None:
    _, peer = World().watch("vllm")
    assert (peer.heard, peer.end) == (["SERVICE_UNKNOWN"], None)


def test_a_watcher_that_left_is_forgotten() -> None:
    world = World()
    call, peer = world.watch("")
    _, other = world.watch("")
    call.cancelled("gone")
    world.health.drain()
    assert (peer.heard, other.heard) == (["SERVING"], ["SERVING", "NOT_SERVING"])


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_garbage(method: str) -> None:
    world = World()
    call, peer = world.call(method)
    call.message(b"\xff\xff")
    assert peer.end == (INVALID_ARGUMENT, "not a HealthCheckRequest")
    world.health.drain()
    assert peer.messages == []


@pytest.mark.parametrize("method", ["Check", "Watch", "List"])
def test_a_call_without_a_message_is_ended(method: str) -> None:
    call, peer = World().call(method)
    call.half_closed()
    assert peer.end == (INVALID_ARGUMENT, "the request is missing")


def test_garbage_after_a_watch_began_ends_it() -> None:
    world = World()
    call, peer = world.watch("")
    call.message(b"\xff\xff")
    assert peer.end == (INVALID_ARGUMENT, "not a HealthCheckRequest")
    world.health.drain()
    assert peer.heard == ["SERVING"]


def test_names_of_pools() -> None:
    ready = {"team/a": True, "team/b": False}
    active = [True]
    health = Health(lambda: False, lambda: True, lambda: active[0], ready.get, lambda: ready)
    assert [health.status(f"pool/team/{name}") for name in "abc"] == [SERVING, NOT_SERVING, None]
    assert list(health.names_of_pools()) == ["pool/team/a", "pool/team/b"]
    assert {"", "liveness", "pool/team/a"} < set(health.names())
    active[0] = False
    assert health.status("pool/team/a") == NOT_SERVING
    active[0] = True
    health.drain()
    assert health.status("pool/team/a") == NOT_SERVING
