# SPDX-License-Identifier: Apache-2.0
"""From InferenceObjectives, InferenceModelRewrites and InferenceModels to `Models`, precedence worked out.

* An object counts for the pool that its poolRef names. Without a group, an InferenceObjective or InferenceModelRewrite
  means inference.networking.k8s.io. An InferenceModel is older than the groups: its poolRef's group is not looked at.
* Objectives are looked up by their own name, whatever group they are of; priority 0 when they give none.
* Rewrites: a rule that names the model beats one for all models; then the oldest object (by name where two are of one
  second); then the first rule of the object.
* InferenceModels: the oldest object of a modelName counts, for its criticality and its targets. A rewrite rule that
  names the model beats it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from epp.contract.errors import DiscoveryError
from epp.contract.models import Models, Target
from epp.discovery.kubernetes.objects import InferenceModel, Objective, PoolRef, Rewrite, RewriteRule
from epp.kube.objects import Meta
from epp.kube.resource import GIE_GROUP

CRITICALITY: Mapping[str, int] = MappingProxyType({"Critical": 1, "Standard": 0, "Sheddable": -1})
MAX_WEIGHT = 1_000_000


@dataclass(frozen=True, slots=True)
class Rule:
    """One rewrite rule. `models` are those it names; `every`: it also holds for all others."""

    models: tuple[str, ...]
    every: bool
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """What one object says, of whichever kind.

    * group: the group of the pool it names, None when any will do
    * pool_key: `namespace/name` of the pool; an object is in its pool's namespace
    * age: orders objects, the oldest first
    * priority: of an objective, by the object's name; of an InferenceModel, for the model of its one rule
    """

    group: str | None
    pool_key: str
    name: str
    age: tuple[str, str]
    priority: int = 0
    rules: tuple[Rule, ...] = ()


def read_objective(obj: Objective) -> Statement:
    """What an InferenceObjective says."""
    return _statement(obj.metadata, obj.spec.pool_ref, _group(obj.spec.pool_ref), obj.spec.priority or 0)


def read_rewrite(obj: Rewrite) -> Statement:
    """What an InferenceModelRewrite says. Raises `DiscoveryError` with one line."""
    place = f"inferencemodelrewrite {_key(obj.metadata)}"
    rules = tuple(_rule(place, rule) for rule in obj.spec.rules or ())
    return _statement(obj.metadata, obj.spec.pool_ref, _group(obj.spec.pool_ref), rules=rules)


def read_model(obj: InferenceModel) -> Statement:
    """What an InferenceModel says. Raises `DiscoveryError` with one line."""
    spec = obj.spec
    place = f"inferencemodel {_key(obj.metadata)}"
    criticality = spec.criticality or "Standard"
    if criticality not in CRITICALITY:
        raise DiscoveryError(
            f"{place}: spec.criticality {criticality[:40]!r} must be one of {', '.join(CRITICALITY)}; mend or delete it"
        )
    targets = tuple(_target(place, target.name, target.weight) for target in spec.target_models or ())
    rules = (Rule((spec.model_name,), False, targets),)
    return _statement(obj.metadata, spec.pool_ref, None, CRITICALITY[criticality], rules)


def models_of(
    group: str, objectives: Iterable[Statement], rewrites: Iterable[Statement], models: Iterable[Statement]
) -> Models:
    """What holds for a pool of `group`. All statements must name the pool; those of another group do not count."""
    priorities: dict[str, int] = {}
    exact: dict[str, tuple[Target, ...]] = {}
    otherwise: tuple[Target, ...] = ()
    for statement in _oldest_first(group, rewrites):
        for rule in statement.rules:
            for model in rule.models:
                exact.setdefault(model, rule.targets)
            otherwise = otherwise or (rule.targets if rule.every else ())
    for statement in _oldest_first(group, models):
        (rule,) = statement.rules
        (model,) = rule.models
        if model in priorities:
            continue
        priorities[model] = statement.priority
        if rule.targets:
            exact.setdefault(model, rule.targets)
    return Models(
        MappingProxyType({s.name: s.priority for s in _oldest_first(group, objectives)}),
        MappingProxyType(priorities),
        MappingProxyType(exact),
        otherwise,
    )


def _oldest_first(group: str, statements: Iterable[Statement]) -> list[Statement]:
    counted = (statement for statement in statements if statement.group in (None, group))
    return sorted(counted, key=lambda statement: statement.age)


def _group(ref: PoolRef) -> str:
    return GIE_GROUP if ref.group is None else ref.group


def _key(meta: Meta) -> str:
    return f"{meta.namespace}/{meta.name}"


def _statement(
    meta: Meta, ref: PoolRef, group: str | None, priority: int = 0, rules: tuple[Rule, ...] = ()
) -> Statement:
    # Times are UTC in one form, so they sort as texts. An object without one is taken for the youngest.
    age = (meta.creation_timestamp or "9999", _key(meta))
    return Statement(group, f"{meta.namespace}/{ref.name}", meta.name, age, priority, rules)


def _rule(place: str, rule: RewriteRule) -> Rule:
    named, every = [], not rule.matches
    for match in rule.matches or ():
        if match.model is None:
            every = True
        elif match.model.type == "Exact":
            named.append(match.model.value)
        else:
            raise DiscoveryError(f"{place}: a match has type {match.model.type[:40]!r}; it must be Exact")
    if not rule.targets:
        raise DiscoveryError(f"{place}: a rule has no targets; mend or delete it")
    targets = tuple(_target(place, target.model_rewrite, target.weight) for target in rule.targets)
    return Rule(tuple(named), every, targets)


def _target(place: str, model: str, weight: int | None) -> Target:
    if not model:
        raise DiscoveryError(f"{place}: a target names no model; mend or delete it")
    if weight is not None and not 1 <= weight <= MAX_WEIGHT:
        raise DiscoveryError(f"{place}: weight {weight} of target {model[:80]!r} must be from 1 to {MAX_WEIGHT}")
    return Target(model, weight)
