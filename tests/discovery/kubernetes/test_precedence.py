# SPDX-License-Identifier: Apache-2.0
"""Which of several objects holds: groups, age, order of rules; and what an object must not say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.contract.errors import DiscoveryError
from epp.contract.models import Models, Target
from epp.discovery.kubernetes.objects import InferenceModel, Objective, Rewrite
from epp.discovery.kubernetes.precedence import Statement, models_of, read_model, read_objective, read_rewrite
from tests.discovery.kubernetes.support import GIE, GIE_X, NS, custom

X = {"name": "x"}


def objective(name: str = "o", *, ref: dict[str, str] = X, **spec: Any) -> Statement:
    return read_objective(msgspec.convert(custom("InferenceObjective", name, {"poolRef": ref} | spec), Objective))


def rewrite(name: str, *rules: tuple[list[str | None] | None, str], ref: dict[str, str] = X, day: int = 1) -> Statement:
    """Rules are (models, target): None among the models is a match without one."""
    spec = {
        "poolRef": ref,
        "rules": [
            {
                "targets": [{"modelRewrite": target}],
                **(
                    {}
                    if models is None
                    else {"matches": [{"model": {"type": "Exact", "value": m}} if m else {} for m in models]}
                ),
            }
            for models, target in rules
        ],
    }
    created = f"2026-01-{day:02}T00:00:00Z"
    return read_rewrite(msgspec.convert(custom("InferenceModelRewrite", name, spec, created=created), Rewrite))


def model(name: str, day: int = 1, **spec: Any) -> Statement:
    body = custom(
        "InferenceModel", name, {"modelName": "m", "poolRef": X} | spec, created=f"2026-01-{day:02}T00:00:00Z"
    )
    return read_model(msgspec.convert(body, InferenceModel))


def chosen(models: Models) -> tuple[dict[str, str], str]:
    return {key: targets[0].model for key, targets in models.rewrites.items()}, "".join(
        target.model for target in models.otherwise
    )


def test_objectives_by_name_with_the_priority_zero_when_none_is_given() -> None:
    found = models_of(GIE, [objective("a", priority=-3), objective("b"), objective("c", priority=2**31 - 1)], [], [])
    assert dict(found.objectives) == {"a": -3, "b": 0, "c": 2**31 - 1}


@pytest.mark.parametrize(
    ("ref_group", "pool_group", "counts"),
    [(None, GIE, True), (None, GIE_X, False), (GIE_X, GIE_X, True), (GIE_X, GIE, False), (GIE, GIE, True)],
)
def test_an_object_counts_for_a_pool_of_the_group_it_names(
    ref_group: str | None, pool_group: str, counts: bool
) -> None:
    ref = X | ({"group": ref_group} if ref_group else {})
    found = models_of(pool_group, [objective(ref=ref)], [rewrite("r", (None, "t"), ref=ref)], [])
    assert (bool(found.objectives), bool(found.otherwise)) == (counts, counts)
    assert models_of(pool_group, [], [], [model("m", poolRef=ref)]).priorities


def test_statements_know_their_pool() -> None:
    assert objective().pool_key == f"{NS}/x"


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([rewrite("a", (["m"], "1"), (["m"], "2"))], ({"m": "1"}, "")),
        ([rewrite("a", (["m"], "1"), day=2), rewrite("b", (["m"], "2"), day=1)], ({"m": "2"}, "")),
        ([rewrite("b", (["m"], "1")), rewrite("a", (["m"], "2"))], ({"m": "2"}, "")),
        ([rewrite("a", (None, "1")), rewrite("b", (["m"], "2"), day=2)], ({"m": "2"}, "1")),
        ([rewrite("a", ([], "1"), (None, "2"))], ({}, "1")),
        ([rewrite("a", (["m", None, "n"], "1"))], ({"m": "1", "n": "1"}, "1")),
        ([rewrite("a", (None, "1"), day=3), rewrite("b", (None, "2"), day=2)], ({}, "2")),
        ([rewrite("a")], ({}, "")),
    ],
)
def test_exact_then_oldest_then_first(statements: list[Statement], expected: tuple[dict[str, str], str]) -> None:
    assert chosen(models_of(GIE, [], statements, [])) == expected
    assert chosen(models_of(GIE, [], statements[::-1], [])) == expected


def test_the_oldest_inference_model_holds_and_a_rewrite_beats_it() -> None:
    young = model("young", 2, criticality="Critical", targetModels=[{"name": "t2"}])
    old = model(
        "old", 1, criticality="Sheddable", targetModels=[{"name": "t1", "weight": 3}, {"name": "t3", "weight": 1}]
    )
    found = models_of(GIE_X, [], [], [young, old])
    assert dict(found.priorities) == {"m": -1}
    assert found.rewrites["m"] == (Target("t1", 3), Target("t3", 1))
    found = models_of(GIE, [], [rewrite("r", (["m"], "r"), day=9)], [young, old])
    assert chosen(found) == ({"m": "r"}, "")


@pytest.mark.parametrize(("criticality", "priority"), [("Critical", 1), ("Standard", 0), ("Sheddable", -1), (None, 0)])
def test_criticality(criticality: str | None, priority: int) -> None:
    found = models_of(GIE, [], [], [model("a", criticality=criticality)])
    assert (dict(found.priorities), dict(found.rewrites)) == ({"m": priority}, {})


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("model", {"criticality": "Huge"}, "'Huge' must be one of Critical, Standard, Sheddable"),
        ("model", {"targetModels": [{"name": "t", "weight": 0}]}, "weight 0 of target 't' must be from 1 to 1000000"),
        ("model", {"targetModels": [{"name": ""}]}, "a target names no model"),
        ("rewrite", {"rules": [{"targets": []}]}, "a rule has no targets"),
        ("rewrite", {"rules": [{}]}, "a rule has no targets"),
        ("rewrite", {"rules": [{"targets": [{"modelRewrite": "t", "weight": 1000001}]}]}, "weight 1000001"),
        (
            "rewrite",
            {"rules": [{"matches": [{"model": {"type": "Prefix", "value": "m"}}], "targets": [{"modelRewrite": "t"}]}]},
            "type 'Prefix'; it must be Exact",
        ),
    ],
)
def test_what_an_object_must_not_say_is_one_line(kind: str, spec: dict[str, Any], words: str) -> None:
    def read() -> Statement:
        if kind == "model":
            return model("o", **spec)
        body = custom("InferenceModelRewrite", "o", {"poolRef": X} | spec)
        return read_rewrite(msgspec.convert(body, Rewrite))

    with pytest.raises(DiscoveryError) as caught:
        read()
    assert words in str(caught.value)
    assert f"{NS}/o" in str(caught.value)


RULES = st.lists(
    st.tuples(st.one_of(st.none(), st.lists(st.sampled_from(["m", "n", None]), max_size=2)), st.sampled_from("tuv")),
    max_size=3,
)


@given(st.lists(st.tuples(RULES, st.integers(1, 3)), max_size=4), st.randoms(use_true_random=False))
def test_the_order_in_which_objects_come_does_not_matter(objects: list[Any], rng: Any) -> None:
    statements = [rewrite(f"r{at}", *rules, day=day) for at, (rules, day) in enumerate(objects)]
    shuffled = statements[:]
    rng.shuffle(shuffled)
    assert models_of(GIE, [], statements, []) == models_of(GIE, [], shuffled, [])
