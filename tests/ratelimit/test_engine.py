# SPDX-License-Identifier: Apache-2.0
"""Answers of the engine, over counters in memory. Numbers are those of the Go service's tests where it has some."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from google.protobuf.wrappers_pb2 import UInt64Value
from hypothesis import given
from hypothesis import strategies as st

from epp.protos import rls_pb2
from epp.ratelimit.engine import Engine, Options
from epp.ratelimit.errors import BadCall, LedgerAway, NotReady
from epp.ratelimit.ledger import Charge, LedgerState, OnFailure, Standing, Window, open_ledger
from epp.ratelimit.rules import rules_from_yaml
from tests.ratelimit.support import Clock, Readings, codes, descriptor, request

OK, OVER = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT
HITS = "epp_ratelimit_hits"
RULES = """\
domain: d
descriptors:
- {key: user, rate_limit: {unit: hour, requests_per_unit: 1000, name: per-user}}
- {key: vip, rate_limit: {unit: hour, requests_per_unit: 5000, replaces: [{name: per-user}]}}
- {key: free, rate_limit: {unlimited: true}}
- {key: free-vip, rate_limit: {unlimited: true, replaces: [{name: per-user}]}}
- {key: shadow, rate_limit: {unit: minute, requests_per_unit: 5}, shadow_mode: true}
- {key: near, rate_limit: {unit: hour, requests_per_unit: 15}}
- {key: twenty, rate_limit: {unit: hour, requests_per_unit: 20}}
- {key: banned, rate_limit: {unit: day, requests_per_unit: 0}}
- {key: model_name_override, rate_limit: {unit: day, requests_per_unit: 1}, quota_mode: true}
"""


def engine(clock: Clock, meter: Readings | None = None, options: Options | None = None) -> Engine:
    made = Engine(open_ledger(None, clock=clock), clock, meter, options)
    made.install(rules_from_yaml(RULES, "rules.yaml"))
    return made


async def test_exactly_the_limit_allows_one_more_look() -> None:
    served = engine(Clock())
    user = ("user", "u1")
    for amount, code, left in ((0, OK, 1000), (999, OK, 1), (1, OK, 0), (0, OK, 0), (1, OVER, 0), (0, OVER, 0)):
        response = await served.should_rate_limit(request("d", descriptor(user, hits=amount)))
        assert (response.overall_code, response.statuses[0].limit_remaining) == (code, left)
    other = await served.should_rate_limit(request("d", descriptor(("user", "u2"), hits=0)))
    assert (other.overall_code, other.statuses[0].limit_remaining) == (OK, 1000)


async def test_a_status_says_limit_left_and_reset() -> None:
    # 1,000,000 is 2,800 s into its hour.
    [status] = (await engine(Clock()).should_rate_limit(request("d", descriptor(("user", "u"))))).statuses
    assert status.current_limit == rls_pb2.RateLimitResponse.RateLimit(
        requests_per_unit=1000, unit="HOUR", name="per-user"
    )
    assert (status.limit_remaining, status.duration_until_reset.seconds) == (999, 800)


async def test_after_the_window_it_works_again() -> None:
    clock = Clock()
    served = engine(clock)
    charge = request("d", descriptor(("user", "u"), hits=2000))
    assert (await served.should_rate_limit(charge)).overall_code == OVER
    clock.now += 799.9
    assert (await served.should_rate_limit(request("d", descriptor(("user", "u"), hits=0)))).overall_code == OVER
    clock.now += 0.1
    response = await served.should_rate_limit(request("d", descriptor(("user", "u"), hits=0)))
    assert (response.overall_code, response.statuses[0].limit_remaining) == (OK, 1000)
    assert response.statuses[0].duration_until_reset.seconds == 3600


@pytest.mark.parametrize(
    ("of_request", "of_descriptor", "booked"),
    [(0, None, 1), (1, None, 1), (7, None, 7), (7, 0, 0), (7, 3, 3), (0, 0, 0), (0, 1 << 63, 1 << 40)],
)
async def test_whose_addend_counts(of_request: int, of_descriptor: int | None, booked: int) -> None:
    clock = Clock()
    served = engine(clock)
    await served.should_rate_limit(request("d", descriptor(("user", "u"), hits=of_descriptor), hits=of_request))
    [standing] = await served.ledger.book([Charge("hour:d:user=u", 3600, 0)], clock.now)
    assert standing
    assert standing.count == booked


async def test_a_counter_that_is_over_goes_on() -> None:
    clock = Clock()
    served = engine(clock)
    for _ in range(3):
        await served.should_rate_limit(request("d", descriptor(("user", "u"), hits=900)))
    [standing] = await served.ledger.book([Charge("hour:d:user=u", 3600, 0)], clock.now)
    assert standing
    assert standing.count == 2700


async def test_refunds() -> None:
    clock, meter = Clock(), Readings()
    served = engine(clock, meter)
    await served.should_rate_limit(request("d", descriptor(("user", "u"), hits=1500)))
    for amount, left in ((300, 0), (300, 100), (5000, 1000)):
        response = await served.should_rate_limit(request("d", descriptor(("user", "u"), hits=amount, refund=True)))
        assert (response.overall_code, response.statuses[0].limit_remaining) == (OK, left)
    assert meter.of(HITS, "d.user", "total_hits") == 1500
    assert meter.of(HITS, "d.user", "total_negative_hits") == 5600


async def test_several_descriptors_are_one_call() -> None:
    served = engine(Clock())
    call = request("d", descriptor(("nothing", "x")), descriptor(("user", "u")), descriptor(("banned", "b")))
    response = await served.should_rate_limit(call)
    assert codes(response) == ["OK", "OK", "OVER_LIMIT"]
    assert response.overall_code == OVER
    assert not response.statuses[0].HasField("current_limit")
    assert not response.statuses[0].HasField("duration_until_reset")
    assert response.statuses[1].limit_remaining == 999


async def test_unlimited() -> None:
    response = await engine(Clock()).should_rate_limit(request("d", descriptor(("free", "x"), hits=1 << 50)))
    assert response.overall_code == OK
    assert response.statuses[0].limit_remaining == 4294967295
    assert not response.statuses[0].HasField("current_limit")


@pytest.mark.parametrize("key", ["vip", "free-vip"])
async def test_replaces(key: str) -> None:
    clock = Clock()
    served = engine(clock)
    response = await served.should_rate_limit(
        request("d", descriptor(("user", "u"), hits=1001), descriptor((key, "u"), hits=1001))
    )
    assert response.overall_code == OK
    assert not response.statuses[0].HasField("current_limit")
    assert response.statuses[0].limit_remaining == 0
    [standing] = await served.ledger.book([Charge("hour:d:user=u", 3600, 0)], clock.now)
    assert standing
    assert standing.count == 0


async def test_shadow_mode_counts_and_says_ok() -> None:
    meter = Readings()
    served = engine(Clock(), meter)
    for left, amount in ((1, 4), (0, 4), (0, 4)):
        response = await served.should_rate_limit(request("d", descriptor(("shadow", "s"), hits=amount)))
        assert (response.overall_code, response.statuses[0].code) == (OK, OK)
        assert response.statuses[0].limit_remaining == left
    assert meter.of(HITS, "d.shadow", "shadow_mode") == 3 + 4
    assert meter.of(HITS, "d.shadow", "over_limit") == 3 + 4


async def test_who_refused_is_counted_once_a_request_and_not_what_is_booked_after_an_answer() -> None:
    meter = Readings()
    text = """\
domain: d
descriptors:
- {key: user, rate_limit: {unit: hour, requests_per_unit: 10, label: team/limit/rule-0}}
- {key: all, rate_limit: {unit: hour, requests_per_unit: 10}}
"""
    served = engine(Clock(), meter)
    served.install(rules_from_yaml(text, "rules"))
    user, everyone = ("user", "u"), ("all", "x")
    for hits, code in ((0, OK), (11, OVER), (0, OVER), (0, OVER)):
        asked = request("d", descriptor(user, hits=hits), descriptor(everyone, hits=0))
        assert (await served.should_rate_limit(asked)).overall_code == code
    assert meter.of("epp_ratelimit_refused", "team/limit/rule-0") == 2
    assert meter.of(HITS, "team/limit/rule-0", "over_limit") == 1
    assert list(meter.counts["epp_ratelimit_refused"]) == [("team/limit/rule-0",)]
    response = await served.should_rate_limit(request("d", descriptor(user, hits=0)))
    assert response.statuses[0].current_limit.name == "", "clients would see it in x-ratelimit-limit"


async def test_global_shadow_mode() -> None:
    meter = Readings()
    served = engine(Clock(), meter, Options(shadow=True))
    response = await served.should_rate_limit(request("d", descriptor(("banned", "x"))))
    assert response.overall_code == OK
    assert codes(response) == ["OVER_LIMIT"]
    assert meter.of("epp_ratelimit_calls", "shadowed") == 1
    assert not meter.counts["epp_ratelimit_refused"]


@pytest.mark.parametrize(
    ("key", "before", "amount", "near", "over", "within"),
    [
        # A limit of 15: near from 12 on. The Go service's numbers for counters that stand at 11, 13 and 16.
        ("near", 10, 1, 0, 0, 1),
        ("near", 12, 1, 1, 0, 1),
        ("near", 15, 1, 0, 1, 0),
        # Addends of 3, a limit of 20: near from 16 on; and all the ways of crossing.
        ("twenty", 2, 3, 0, 0, 3),
        ("twenty", 14, 3, 1, 0, 3),
        ("twenty", 16, 3, 3, 0, 3),
        ("twenty", 19, 3, 1, 2, 0),
        ("twenty", 20, 2, 0, 2, 0),
        ("twenty", 10, 20, 4, 10, 0),
    ],
)
async def test_statistics(key: str, before: int, amount: int, near: int, over: int, within: int) -> None:
    clock, meter = Clock(), Readings()
    served = engine(clock, meter)
    await served.ledger.book([Charge(f"hour:d:{key}=x", 3600, before)], clock.now)
    await served.should_rate_limit(request("d", descriptor((key, "x"), hits=amount)))
    seen = [meter.of(HITS, f"d.{key}", stat) for stat in ("total_hits", "near_limit", "over_limit", "within_limit")]
    assert seen == [amount, near, over, within]


async def test_quota_mode_is_over_where_every_group_is() -> None:
    served = engine(Clock())
    first, second = descriptor(("model_name_override", "a")), descriptor(("model_name_override", "b"))
    for call, code in (
        (request("d", first), OK),
        (request("d", first, second), OK),
        (request("d", first, second), OVER),
    ):
        assert (await served.should_rate_limit(call)).overall_code == code
    response = await served.should_rate_limit(request("d", first, descriptor(("user", "u"))))
    assert response.overall_code == OVER


async def test_bad_calls() -> None:
    meter = Readings()
    served = engine(Clock(), meter)
    with pytest.raises(BadCall, match="domain must not be empty"):
        await served.should_rate_limit(request("", descriptor(("user", "u"))))
    with pytest.raises(BadCall, match="descriptor list must not be empty"):
        await served.should_rate_limit(request("d"))
    assert meter.of("epp_ratelimit_calls", "error") == 2
    with pytest.raises(NotReady, match="no rate limit configuration loaded"):
        await Engine(open_ledger(None)).should_rate_limit(request("d", descriptor(("user", "u"))))


async def test_an_unknown_domain_is_ok_and_counted() -> None:
    meter = Readings()
    response = await engine(Clock(), meter).should_rate_limit(request("e", descriptor(("user", "u"))))
    assert (response.overall_code, codes(response)) == (OK, ["OK"])
    assert meter.of("epp_ratelimit_unknown_domain", "e") == 1


async def test_headers() -> None:
    served = engine(Clock(), options=Options(headers=True))
    call = request("d", descriptor(("user", "u"), hits=10), descriptor(("near", "n"), hits=10), descriptor(("x", "y")))

    def of(response: rls_pb2.RateLimitResponse) -> dict[str, str]:
        return {header.key: header.value for header in response.response_headers_to_add}

    assert of(await served.should_rate_limit(call)) == {
        "RateLimit-Limit": "15, 15;w=3600",
        "RateLimit-Remaining": "5",
        "RateLimit-Reset": "800",
    }
    over = request("d", descriptor(("user", "u"), hits=2000), descriptor(("banned", "b")))
    assert of(await served.should_rate_limit(over))["RateLimit-Limit"] == "0, 0;w=86400"
    assert of(await served.should_rate_limit(request("d", descriptor(("free", "f"))))) == {}


async def test_a_reload_keeps_counters() -> None:
    served = engine(Clock())
    call = request("d", descriptor(("user", "u"), hits=600))
    await served.should_rate_limit(call)
    served.install(rules_from_yaml(RULES.replace("1000", "1500"), "rules.yaml"))
    response = await served.should_rate_limit(call)
    assert response.statuses[0].limit_remaining == 300


class _Away:
    def __init__(self, on_failure: OnFailure) -> None:
        self.on_failure = on_failure

    async def book(self, charges: Sequence[Charge], now: float) -> Sequence[Standing | None]:
        return [None] * len(charges)

    def state(self) -> LedgerState:
        return LedgerState("nowhere", Window.FIXED, away="gone")

    async def start(self) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("on_failure", "code"), [(OnFailure.ALLOW, OK), (OnFailure.DENY, OVER), (OnFailure.ERROR, None)]
)
async def test_without_counters(on_failure: OnFailure, code: int | None) -> None:
    meter = Readings()
    served = Engine(_Away(on_failure), Clock(), meter)
    served.install(rules_from_yaml(RULES, "rules.yaml"))
    call = request("d", descriptor(("user", "u")), descriptor(("none", "u")))
    if code is None:
        with pytest.raises(LedgerAway):
            await served.should_rate_limit(call)
    else:
        response = await served.should_rate_limit(call)
        assert response.overall_code == code
        assert not response.statuses[0].HasField("current_limit")
        shadow = await served.should_rate_limit(request("d", descriptor(("shadow", "u"))))
        assert shadow.overall_code == OK
    assert meter.of("epp_ratelimit_unanswered", on_failure.value) >= 1


_TEXTS = st.sampled_from(["", "user", "shadow", "d", "x"]) | st.text(max_size=20)
_BYTES = _TEXTS.map(str.encode) | st.binary(max_size=20)
_ENTRIES = st.builds(rls_pb2.RateLimitDescriptor.Entry, key=_TEXTS, value=_BYTES)
_OVERRIDES = st.none() | st.builds(
    rls_pb2.RateLimitDescriptor.RateLimitOverride,
    requests_per_unit=st.integers(0, 2**32 - 1),
    unit=st.integers(-1, 9),  # type: ignore[arg-type]  # numbers that the protocol does not name too
)
_DESCRIPTORS = st.builds(
    rls_pb2.RateLimitDescriptor,
    entries=st.lists(_ENTRIES, max_size=3),
    limit=_OVERRIDES,
    hits_addend=st.none() | st.builds(UInt64Value, value=st.integers(0, 2**64 - 1)),
    is_negative_hits=st.booleans(),
)
_REQUESTS = st.builds(
    rls_pb2.RateLimitRequest,
    domain=st.sampled_from(["d", "", "e"]),
    descriptors=st.lists(_DESCRIPTORS, max_size=4),
    hits_addend=st.integers(0, 2**32 - 1),
)


@given(calls=st.lists(_REQUESTS, max_size=5), window=st.sampled_from(Window))
def test_any_request_has_an_answer(calls: list[rls_pb2.RateLimitRequest], window: Window) -> None:
    async def served() -> None:
        answering = Engine(open_ledger(None, window=window, most_counters=3), Clock(), None, Options(headers=True))
        answering.install(rules_from_yaml(RULES, "rules.yaml"))
        for call in calls:
            try:
                response = await answering.should_rate_limit(call)
            except BadCall:
                continue
            assert len(response.statuses) == len(call.descriptors)
            assert rls_pb2.RateLimitResponse.FromString(response.SerializeToString()) == response

    asyncio.run(served())
