# SPDX-License-Identifier: Apache-2.0
"""The scheduler cycle: sums, clamping, filters, handlers, and plugins that misbehave (specification 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from epp.contract.decision import ProfileResult
from epp.contract.endpoints import BoolArray, Endpoints, FloatArray, IntArray
from epp.contract.errors import BadRequest, ResourceExhausted
from epp.contract.requests import InferenceRequest
from epp.scheduling.guard import BENCH_AFTER, BENCH_S, Guarded
from epp.scheduling.profile import Profile
from epp.scheduling.scheduler import Scheduler
from epp.testing import FakeClock, make_endpoints, make_request


class Fixed:
    """A scorer, filter and picker in one, that answers what it was told, or raises it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls = 0

    def _say(self) -> Any:
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def score(self, request: InferenceRequest, endpoints: Endpoints) -> FloatArray:
        return self._say()  # type: ignore[no-any-return]

    def filter(self, request: InferenceRequest, endpoints: Endpoints) -> BoolArray:
        return self._say()  # type: ignore[no-any-return]

    def pick(self, request: InferenceRequest, endpoints: Endpoints, total: FloatArray) -> IntArray:
        if self.answer is None:
            return np.array([int(total.argmax())])
        return self._say()  # type: ignore[no-any-return]


class Handler:
    """Runs the rounds it is given, then names `best` as primary."""

    def __init__(self, rounds: list[list[str]] | Exception, best: str = "default") -> None:
        self.rounds = rounds
        self.best = best

    def pick_profiles(
        self, request: InferenceRequest, profiles: Sequence[str], results: Mapping[str, ProfileResult | None]
    ) -> Sequence[str]:
        if isinstance(self.rounds, Exception):
            raise self.rounds
        return self.rounds.pop(0) if self.rounds else []

    def primary(self, request: InferenceRequest, results: Mapping[str, ProfileResult | None]) -> str:
        return self.best


def profile(
    scorers: Sequence[tuple[Any, float]] = (),
    filters: Sequence[Any] = (),
    picker: Any = None,
    name: str = "default",
    clock: FakeClock | None = None,
) -> Profile:
    clock = clock or FakeClock()
    return Profile(
        name,
        [Guarded(f"filter-{i}", Fixed(f), clock) for i, f in enumerate(filters)],
        [(Guarded(f"scorer-{i}", Fixed(s), clock), w) for i, (s, w) in enumerate(scorers)],
        Guarded("picker", Fixed(picker), clock),
    )


def scheduler(*profiles: Profile, handler: Any = None) -> Scheduler:
    clock = FakeClock()
    return Scheduler(profiles, Guarded("handler", handler or Handler([["default"]]), clock), clock)


REQUEST = make_request("hello")
THREE = make_endpoints(waiting=[0, 0, 0])


def test_the_total_is_the_weighted_sum_of_clamped_scores() -> None:
    run = profile([(np.array([2.0, 0.5, -1.0]), 2.0), (np.array([0.0, 1.0, 1.0]), -0.5)])
    result = run.run(REQUEST, THREE)
    assert result.total.tolist() == [2.0, 0.5, -0.5]
    assert result.picked == (0,)
    assert result.scores[0].raw.tolist() == [2.0, 0.5, -1.0]
    assert result.scores[0].weighted.tolist() == [2.0, 1.0, 0.0]


def test_filters_run_in_order_and_leave_a_trace() -> None:
    run = profile([(np.array([1.0]), 1.0)], [np.array([True, False, True]), np.array([False, True])])
    result = run.run(REQUEST, THREE)
    assert [e.name for e in result.targets] == [THREE[2].name]
    assert [(f.name, f.before, f.dropped_rows.tolist()) for f in result.filters] == [
        ("filter-0", 3, [THREE.rows[1]]),
        ("filter-1", 2, [THREE.rows[0]]),
    ]


def test_nothing_left_is_429_and_names_the_filter() -> None:
    run = profile(filters=[np.zeros(3, dtype=bool), RuntimeError("must not run")])
    with pytest.raises(ResourceExhausted, match="filter 'filter-0'") as caught:
        run.run(REQUEST, THREE)
    assert caught.value.reason == "rejected-saturated"


@pytest.mark.parametrize(
    "bad", [RuntimeError("boom"), np.array([1.0]), np.array([1.0, float("nan"), 0.0]), "text", np.ones((3, 3))]
)
def test_a_scorer_that_breaks_abstains(bad: Any) -> None:
    run = profile([(bad, 5.0), (np.array([0.0, 0.0, 1.0]), 1.0)])
    result = run.run(REQUEST, THREE)
    assert result.picked == (2,)
    assert result.scores[0].error
    assert result.scores[0].raw.tolist() == [0, 0, 0]


@pytest.mark.parametrize("bad", [RuntimeError("boom"), np.array([True])])
def test_a_filter_that_breaks_passes_everybody(bad: Any) -> None:
    assert len(profile(filters=[bad]).run(REQUEST, THREE).endpoints) == 3


@pytest.mark.parametrize("bad", [RuntimeError("boom"), [], [3], [-1], "x"])
def test_a_picker_that_breaks_is_replaced_by_the_best_score(bad: Any) -> None:
    run = profile([(np.array([0.0, 1.0, 0.5]), 1.0)], picker=bad)
    assert run.run(REQUEST, THREE).picked == (1,)


def test_a_refusal_of_a_plugin_is_no_fault() -> None:
    run = profile([(BadRequest("say please"), 1.0)])
    with pytest.raises(BadRequest, match="say please"):
        run.run(REQUEST, THREE)


def test_a_plugin_that_keeps_failing_is_benched_and_tried_again() -> None:
    clock = FakeClock()
    run = profile([(RuntimeError("boom"), 1.0)], clock=clock)
    guarded = run.scorers[0][0]
    scorer: Any = guarded.plugin
    for _ in range(BENCH_AFTER + 10):
        run.run(REQUEST, THREE)
    assert scorer.calls == guarded.errors == BENCH_AFTER
    assert run.run(REQUEST, THREE).scores[0].error == "benched"
    clock.advance(BENCH_S + 1)
    scorer.answer = np.ones(3)
    assert run.run(REQUEST, THREE).scores[0].error is None
    assert not guarded.benched


def test_profiles_run_as_the_handler_asks_and_one_is_primary() -> None:
    both = [profile([(np.array([1.0, 0, 0]), 1)], name="decode"), profile([(np.array([0, 0, 1.0]), 1)], name="prefill")]
    decision = scheduler(*both, handler=Handler([["decode"], ["prefill"]], best="decode")).schedule(REQUEST, THREE)
    assert decision.target.name == THREE[0].name
    assert decision.results["prefill"].targets[0].name == THREE[2].name


def test_a_failed_secondary_profile_is_left_out() -> None:
    both = [profile(name="decode"), profile(filters=[np.zeros(3, bool)], name="prefill")]
    decision = scheduler(*both, handler=Handler([["decode", "prefill"]], best="decode")).schedule(REQUEST, THREE)
    assert list(decision.results) == ["decode"]


def test_no_profile_found_anything() -> None:
    with pytest.raises(ResourceExhausted, match="filter 'filter-0'"):
        scheduler(profile(filters=[np.zeros(3, bool)])).schedule(REQUEST, THREE)
    with pytest.raises(ResourceExhausted, match="failed to find target endpoint"):
        scheduler(profile(), handler=Handler([["unknown"]])).schedule(REQUEST, THREE)


def test_a_handler_that_breaks_runs_the_first_profile() -> None:
    broken = Handler(RuntimeError("boom"))
    assert scheduler(profile(), handler=broken).schedule(REQUEST, THREE).primary == "default"


def test_the_decision_explains_itself() -> None:
    run = profile([(np.array([0.25, 1.0, 0.5]), 2.0)])
    decision = scheduler(run).schedule(REQUEST, THREE)
    why = decision.explain()
    assert THREE[1].name in why
    assert "runner-up" in why
    [told] = decision.as_dict()["profiles"]
    assert told["picked"]["scores"]["scorer-0"] == {
        "raw": 1.0,
        "clamped": 1.0,
        "weight": 2.0,
        "weighted": 2.0,
    }
    assert told["runner_up"]["endpoint"] == THREE[2].id
    assert told["margin"] == 1.0
