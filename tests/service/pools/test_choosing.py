# SPDX-License-Identifier: Apache-2.0
"""Which pool a stream is for: the order of what decides, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from epp.service.pools.choosing import MOST_REMEMBERED, Chooser, Claim, Ways
from epp.service.pools.identity import PoolId

A = PoolId("team-a", "llama")
B = PoolId("team-b", "llama")
C = PoolId("team-b", "qwen")
D = PoolId("team-b", "mistral")
CLAIMS = [
    Claim(A, "llama-epp", 9002),
    Claim(B, "llama-epp", 9002),
    Claim(C, "qwen-epp", 9012),
    Claim(D, "qwen-epp", 9022),
]


@dataclass
class Call:
    authority: str = ""
    values: dict[str, str] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("said_pool", "port", "authority", "pool"),
    [
        # The metadata decides over everything else, also when it is wrong.
        ("team-b/qwen", 9002, "llama-epp.team-a.svc:9002", C),
        ("qwen", 9002, "", C),
        ("llama", 9002, "", A),
        (" team-b/llama ", 9002, "", B),
        ("team-a/qwen", 9012, "qwen-epp.team-b:9012", None),
        ("gone", 9002, "llama-epp.team-a.svc:9002", None),
        # A port that one pool has.
        ("", 9012, "llama-epp.team-a.svc:9002", C),
        ("", 9022, "", D),
        # The authority.
        ("", 9002, "llama-epp.team-a.svc:9002", A),
        ("", 9002, "llama-epp.team-b", B),
        ("", 9002, "outbound|9002||llama-epp.team-b.svc.cluster.local", B),
        ("", 9002, "qwen-epp.team-b:9012", C),
        ("", 9002, "qwen-epp:9022", D),
        ("", 9002, "envoy.clusters.endpointpicker_qwen_team-b_ext_proc", C),
        ("", 9002, "endpointpicker_qwen_team-a_ext_proc", None),
        # A Service of one pool is known by its name, whatever port is said.
        ("", 9002, "llama-epp.team-a.svc:443", A),
        # What fits several pools, or none.
        ("", 9002, "llama-epp", None),
        ("", 9002, "qwen-epp.team-b", None),
        ("", 9002, "other.team-a.svc:9002", None),
        ("", 9002, "10.1.2.3:9002", None),
        ("", 9002, "", None),
    ],
)
def test_ways(said_pool: str, port: int, authority: str, pool: PoolId | None) -> None:
    assert Ways(CLAIMS, "team-a", (9012, 9022)).choose(said_pool, port, authority) == pool


def test_a_port_that_is_not_listened_on_for_pools_decides_nothing() -> None:
    assert Ways(CLAIMS, "team-a").choose("", 9012, "llama-epp.team-a") == A


def test_two_pools_on_one_port_are_told_apart_by_authority() -> None:
    ways = Ways([Claim(A, "a", 9012), Claim(C, "c", 9012)], "team-a", (9012,))
    assert ways.choose("", 9012, "a.team-a.svc:9012") == A
    assert ways.choose("", 9012, "c.team-b.svc:9012") == C
    assert ways.choose("", 9012, "10.0.0.1:9012") is None


def test_the_port_helps_where_the_authority_alone_does_not() -> None:
    claims = [Claim(A, "epp", 9012), Claim(B, "epp", 9002), Claim(C, "other", 9012)]
    assert Ways(claims, "", (9012,)).choose("", 9012, "epp") == A


def test_one_pool_needs_no_telling() -> None:
    ways = Ways([Claim(A, "llama-epp", 9002)], "team-a")
    for authority in ("", "10.0.0.1:9002", "[::1]:9002", "localhost:9002", "llama-epp.team-a"):
        assert ways.choose("", 9002, authority) == A, authority
    # It may name a pool that is not there yet, or no more.
    assert ways.choose("", 9002, "qwen-epp.team-b.svc:9002") is None
    assert Ways([Claim(A, "llama-epp", 9002)], "team-a", alone=True).choose("", 9002, "qwen-epp.team-b.svc:9002") == A
    assert Ways([Claim(A)], "team-a").choose("", 9002, "whatever:80") == A
    assert ways.choose("other", 9002, "") is None


def test_no_pool_is_chosen_where_there_is_none() -> None:
    assert Ways((), "team-a").choose("", 9002, "a.b:9002") is None


def test_pools_that_cannot_be_told_apart_are_named() -> None:
    same = [Claim(A, "epp", 9002), Claim(PoolId("team-a", "x"), "epp", 9002), Claim(C, "epp", 9002)]
    [line] = Ways(same, "").doubts()
    assert "team-a/llama, team-a/x" in line
    assert "x-epp-pool" in line
    assert "team-b" not in line
    assert Ways(CLAIMS, "").doubts() == []


def test_a_chooser_remembers_until_pools_change() -> None:
    chooser: Chooser[str] = Chooser()
    choose = chooser.on_port(9002)
    call = Call("llama-epp.team-a.svc:9002")
    assert choose(call) is None
    chooser.use(Ways(CLAIMS, ""), {A: "a", B: "b"})
    assert choose(call) == "a"
    assert choose(call) == "a"
    assert choose(Call("llama-epp.team-b")) == "b"
    assert choose(Call("qwen-epp.team-b:9012")) is None  # a claim that nobody serves
    chooser.use(Ways(CLAIMS, ""), {B: "b"})
    assert choose(call) is None


def test_what_peers_say_is_not_remembered_without_end() -> None:
    chooser: Chooser[str] = Chooser()
    chooser.use(Ways(CLAIMS, ""), {A: "a"})
    choose = chooser.on_port(9002)
    for number in range(MOST_REMEMBERED + 10):
        assert choose(Call(f"s{number}.x")) is None
    assert len(chooser._known) <= MOST_REMEMBERED
    assert choose(Call("llama-epp.team-a")) == "a"


def test_what_is_unknown_is_told_with_the_remedy() -> None:
    chooser: Chooser[str] = Chooser()
    line = chooser.unknown(Call("who\nknows"), 9002)
    assert r"'who\nknows'" in line
    assert "9002" in line
    assert "envoy_grpc.authority" in line
    assert "x-epp-pool" in line
    assert "'team/x'" in chooser.unknown(Call("a", {"x-epp-pool": "team/x"}), 9002)
