# SPDX-License-Identifier: Apache-2.0
"""What a plugin is: Protocols for the places it can act, and decorators that tag it with its type name.

A decorator only attaches a `PluginSpec`; it registers nothing. The loader collects tagged objects from modules it is
told of. The smallest plugin is a function (`@scorer`, `@filter`, `@picker`); larger ones are classes with a typed
`Parameters` dataclass, constructed once per instance in the configuration as `Class(parameters, context)`.

An exception in a plugin never costs a request: a scorer abstains, a filter passes everybody, a picker falls back to
the best score; it is counted, and a plugin that keeps failing is benched.
"""

from __future__ import annotations

import builtins
import enum
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from epp.contract.decision import Decision, ProfileResult
from epp.contract.endpoints import BoolArray, Clock, Endpoint, Endpoints, FloatArray, IntArray
from epp.contract.metering import Meter, NoMeter
from epp.contract.requests import Completion, InferenceRequest, ResponseEnd, ResponseHead


class Reads(enum.Flag):
    """What a plugin reads. The plan does only what somebody declared: no scrape, no body parse otherwise."""

    NOTHING = 0
    WAITING = enum.auto()
    RUNNING = enum.auto()
    KV_UTILIZATION = enum.auto()
    CACHE_CONFIG = enum.auto()
    BODY = enum.auto()
    PROMPT = enum.auto()
    PREFIX_MATCH = enum.auto()
    IN_FLIGHT = enum.auto()
    RESPONSE_BODY = enum.auto()
    """Taken for granted of every plugin that has `on_response_end`."""
    LORA = enum.auto()
    RESPONSE_HEADERS = enum.auto()
    """Taken for granted of every plugin that has `on_response_headers`."""


LOAD = Reads.WAITING | Reads.RUNNING | Reads.KV_UTILIZATION
"""What a scorer or filter is taken to read when it does not say."""

SCRAPED = Reads.WAITING | Reads.RUNNING | Reads.KV_UTILIZATION | Reads.CACHE_CONFIG | Reads.LORA
"""The needs that make us read metrics pages."""


class Kind(enum.Enum):
    """Where a plugin acts. One class may be of several kinds."""

    FILTER = "filter"
    SCORER = "scorer"
    PICKER = "picker"
    PROFILE_HANDLER = "profile handler"
    PRODUCER = "producer"
    DISCOVERY = "discovery"
    DETECTOR = "saturation detector"
    PASSIVE = "passive"


@runtime_checkable
class Filter(Protocol):
    """Keeps some candidates."""

    def filter(self, request: InferenceRequest, endpoints: Endpoints) -> BoolArray:
        """True for the candidates to keep, shape (n,). Nothing left answers the request with 429."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Says how good each candidate is."""

    def score(self, request: InferenceRequest, endpoints: Endpoints) -> FloatArray:
        """One value per candidate, shape (n,), higher is better; the scheduler limits it to 0..1.

        The array is kept in the decision's record: return a fresh one, not one that is written to again.
        """
        ...


@runtime_checkable
class Picker(Protocol):
    """Chooses from the totals."""

    def pick(self, request: InferenceRequest, endpoints: Endpoints, total: FloatArray) -> IntArray:
        """Positions of the chosen candidates, the preferred first; at least one."""
        ...


@runtime_checkable
class ProfileHandler(Protocol):
    """Decides which profiles run for a request, and which one is primary."""

    def pick_profiles(
        self, request: InferenceRequest, profiles: Sequence[str], results: Mapping[str, ProfileResult | None]
    ) -> Sequence[str]:
        """The profiles to run next; empty when done. `results` holds what ran so far, None where it failed."""
        ...

    def primary(self, request: InferenceRequest, results: Mapping[str, ProfileResult | None]) -> str:
        """The profile whose targets Envoy is told."""
        ...


@runtime_checkable
class Producer(Protocol):
    """Computes what scorers will read, once per request, before any profile runs."""

    def produce(self, request: InferenceRequest, endpoints: Endpoints) -> Awaitable[None] | None:
        """Publish on the request. Returns an awaitable only when something must be waited for."""
        ...


@runtime_checkable
class SaturationDetector(Protocol):
    """Says how full the pool is."""

    def saturation(self, endpoints: Endpoints) -> float:
        """0 for an idle pool; from 1 on requests with a priority below 0 are refused. `endpoints` may be empty."""
        ...


@runtime_checkable
class RoutedHook(Protocol):
    """Told in the same step as the choice is charged, before anything awaits."""

    def on_routed(self, request: InferenceRequest, decision: Decision) -> None:
        """`decision.target` was chosen for `request`."""
        ...


@runtime_checkable
class ResponseHook(Protocol):
    """Told when an endpoint's answer begins, where responses are followed at all; may set headers on it."""

    def on_response_headers(
        self, request: InferenceRequest, decision: Decision, response: ResponseHead
    ) -> Mapping[str, str]:
        """The answer to `request` begins as `response` says; returns headers to set on it, overwriting.

        Names are tokens (no pseudo headers), values without control characters; whatever else is left out and counts
        as a failure.
        """
        ...


@runtime_checkable
class ResponseEndHook(Protocol):
    """Told when the last piece of an answer passes by; may leave dynamic metadata for Envoy's filters. Not told of an
    answer that breaks off, or that nobody watches to its end."""

    def on_response_end(self, request: InferenceRequest, end: ResponseEnd) -> Mapping[str, Mapping[str, Any]]:
        """The answer to `request` is complete; returns metadata by namespace, values are numbers, strings or booleans.

        Envoy takes the namespaces that its filter lists in `metadata_options.receiving_namespaces`, and no others.
        """
        ...


class UsageWish(enum.Enum):
    """Whether streamed answers are made to tell their tokens, where the client did not ask for that
    (`stream_options.include_usage` of OpenAI's completions)."""

    NEVER = "off"
    ASK = "on"
    ASK_AND_HIDE = "hidden"
    """What the client did not ask for does not reach it."""


@runtime_checkable
class UsageWisher(Protocol):
    """A plugin that wants the tokens of every answer, which is then followed to its end. Of several wishes the last in
    `UsageWish` counts."""

    usage_wish: UsageWish


@runtime_checkable
class DoneHook(Protocol):
    """Told once when a routed request has ended, on every way out."""

    def on_done(self, request: InferenceRequest, decision: Decision, completion: Completion) -> None:
        """The request ended as `completion` says."""
        ...


@runtime_checkable
class EndpointHook(Protocol):
    """Told when pool membership changes."""

    def on_endpoint_added(self, endpoint: Endpoint) -> None:
        """`endpoint` is there from now on."""
        ...

    def on_endpoint_removed(self, endpoint: Endpoint) -> None:
        """`endpoint` is gone, with all that its caches held."""
        ...


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What a plugin instance is given: its name, the clock (monotonic seconds), its own seeded randomness, and where it
    counts."""

    name: str
    clock: Clock
    rng: random.Random
    meter: Meter = field(default_factory=NoMeter)


@dataclass(frozen=True, slots=True)
class PluginSpec:
    """What a decorator attaches.

    * type: the name used in configurations; aliases: older names of the same thing
    * factory: called as `factory(parameters, context)`; parameters: the dataclass, None when there are none
    * any_parameters: accept and ignore unknown parameters, as the Go plugin does
    """

    type: str
    kinds: frozenset[Kind]
    factory: Callable[[Any, PluginContext], Any]
    parameters: builtins.type | None = None
    aliases: tuple[str, ...] = ()
    reads: Reads = Reads.NOTHING
    any_parameters: bool = False
    doc: str = ""


T = TypeVar("T")
SPEC_ATTRIBUTE = "__epp_plugin__"


def plugin(
    type: str,  # noqa: A002 - the field's name in configurations
    *kinds: Kind,
    aliases: Sequence[str] = (),
    reads: Reads = Reads.NOTHING,
    any_parameters: bool = False,
) -> Callable[[T], T]:
    """Tag a class as a plugin. Its nested dataclass `Parameters`, if any, describes its parameters."""

    def tag(target: T) -> T:
        parameters = getattr(target, "Parameters", None)
        spec = PluginSpec(
            type=type,
            kinds=frozenset(kinds or {Kind.PASSIVE}),
            factory=_class_factory(target, parameters is not None),
            parameters=parameters,
            aliases=tuple(aliases),
            reads=reads,
            any_parameters=any_parameters,
            doc=getattr(target, "__doc__", "") or "",
        )
        setattr(target, SPEC_ATTRIBUTE, spec)
        return target

    return tag


def scorer(
    type: str,  # noqa: A002
    *,
    aliases: Sequence[str] = (),
    reads: Reads = LOAD,
    any_parameters: bool = False,
) -> Callable[[T], T]:
    """Tag a class with `score`, or a function `(request, endpoints) -> scores`, as a scorer.

    `reads` says what it needs, so that nothing else is done for it; left out, the load signals are scraped for it.
    """
    return _tag_one(type, Kind.SCORER, "score", aliases, reads, any_parameters)


def filter(  # noqa: A001 - the field's name
    type: str,  # noqa: A002
    *,
    aliases: Sequence[str] = (),
    reads: Reads = Reads.NOTHING,
    any_parameters: bool = False,
) -> Callable[[T], T]:
    """Tag a class with `filter`, or a function `(request, endpoints) -> mask`, as a filter; `reads` as for `scorer`."""
    return _tag_one(type, Kind.FILTER, "filter", aliases, reads, any_parameters)


def picker(
    type: str,  # noqa: A002
    *,
    aliases: Sequence[str] = (),
    reads: Reads = Reads.NOTHING,
    any_parameters: bool = False,
) -> Callable[[T], T]:
    """Tag a class with `pick`, or a function `(request, endpoints, total) -> positions`, as a picker."""
    return _tag_one(type, Kind.PICKER, "pick", aliases, reads, any_parameters)


def spec_of(target: object) -> PluginSpec | None:
    """The spec a decorator attached to `target`, or None."""
    spec = getattr(target, SPEC_ATTRIBUTE, None)
    return spec if isinstance(spec, PluginSpec) else None


def _tag_one(
    name: str, kind: Kind, method: str, aliases: Sequence[str], reads: Reads, any_parameters: bool
) -> Callable[[T], T]:
    as_class = plugin(name, kind, aliases=aliases, reads=reads, any_parameters=any_parameters)

    def tag(target: T) -> T:
        if isinstance(target, type):
            return as_class(target)
        wrapped = _FunctionPlugin(target, method)
        spec = PluginSpec(
            type=name,
            kinds=frozenset({kind}),
            factory=lambda _parameters, _context: wrapped,
            aliases=tuple(aliases),
            reads=reads,
            any_parameters=any_parameters,
            doc=getattr(target, "__doc__", "") or "",
        )
        setattr(target, SPEC_ATTRIBUTE, spec)
        return target

    return tag


class _FunctionPlugin:
    """An object whose one method is the tagged function."""

    def __init__(self, function: Any, method: str) -> None:
        setattr(self, method, function)


def _class_factory(target: Any, takes_parameters: bool) -> Callable[[Any, PluginContext], Any]:
    def build(parameters: Any, context: PluginContext) -> Any:
        if target.__init__ is object.__init__:
            return target()
        return target(parameters, context) if takes_parameters else target(context)

    return build
