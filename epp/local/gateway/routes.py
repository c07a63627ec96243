# SPDX-License-Identifier: Apache-2.0
"""From route rules to Envoy's routes.

Each way a rule can match, and each of its targets, is a route of its own, so that all that depends on the target (its
picker, its host name, its path prefix) is said in one place. Targets share by a fraction of the stream's own random
number, which is the same however often the route is looked up: the shares are exact, and a request that a picker has
seen does not change its target.

Order: rules with more headers first, as Gateway API asks; else as in the files. What no rule takes gets the 404 that
Envoy AI Gateway gives for an unknown model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts import v3 as previous_hosts
from envoy_data_plane.envoy.type import v3 as kinds
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google import protobuf

from epp.local.gateway import captured, names
from epp.local.gateway.messages import exactly, inline, packed, seconds
from epp.local.gateway.processors import for_host, for_pool
from epp.local.gateway.ratelimits import matching, missing_or_empty, route_limits
from epp.manifests.limits import Absent, LimitPolicy, Match, policy_for
from epp.manifests.topology import Backend, HeaderMatch, Listener, Rule, Target, Topology

DEFAULT_TIMEOUT_S = 60.0
NO_ROUTE = (
    "No matching route found. It is likely that the model specified your request is not configured in the Gateway."
)
CODE = "header_missing"
"""Of a refusal because of an absent header, as `epp gateway` has codes for its own."""
NO_TARGET = "The route has no backend."
ENVOY_HEADERS = ("x-envoy-upstream-service-time", "x-envoy-overloaded", "x-envoy-degraded")
"""Headers of answers that a listener can turn off; `x-envoy-` headers of requests stay, limits may need them."""
RETRY_BUFFER_BYTES = 4 * 1024 * 1024
"""The longest body that can be sent to another endpoint."""

_PARTS = 1_000_000
_API_ROOT = "/v1"


@dataclass(frozen=True, slots=True)
class _Taken:
    """A route rule on the listener it takes requests of, and the policy that limits it."""

    listener: Listener
    rule: Rule
    policy: LimitPolicy | None


def route_configuration(name: str, listeners: Sequence[Listener], topology: Topology) -> route.RouteConfiguration:
    """The routes of the `listeners` that share one Envoy listener: a virtual host for each host name."""
    hosts: dict[str, list[Listener]] = {"*": []}
    for listener in listeners:
        hosts.setdefault(listener.hostname or "*", []).append(listener)
    return route.RouteConfiguration(
        name=name,
        virtual_hosts=[_virtual_host(host, shared, topology) for host, shared in hosts.items()],
        ignore_port_in_host_matching=True,
    )


def _virtual_host(host: str, listeners: Sequence[Listener], topology: Topology) -> route.VirtualHost:
    backends = {backend.name: backend for backend in topology.backends}
    changed = captured.changed(topology)
    captured.check(topology.limits, changed)
    groups = [
        (len(headers), _routes(taken, headers, backends, changed))
        for taken in _taken(listeners, topology)
        for headers in taken.rule.matches or ((),)
    ]
    # Stable: equals stay as they are in the files.
    groups.sort(key=lambda group: -group[0])
    routes = [one for _, group in groups for one in group]
    routes.append(route.Route(name="no-route", match=_match(()), direct_response=_answer(404, NO_ROUTE)))
    return route.VirtualHost(name=host, domains=[host], routes=routes, typed_per_filter_config=for_host(topology.pools))


def _taken(listeners: Sequence[Listener], topology: Topology) -> Iterator[_Taken]:
    """Every route rule that one of `listeners` takes, once: the first of them has it."""
    for one in topology.routes:
        listener = next((listener for listener in listeners if one.is_on(listener)), None)
        if listener is None:
            continue
        policy = policy_for(topology.limits, one.name, listener.gateway, listener.name)
        for rule in one.rules:
            yield _Taken(listener, rule, policy)


def _routes(
    taken: _Taken, headers: Sequence[HeaderMatch], backends: Mapping[str, Backend], changed: Mapping[str, str]
) -> list[route.Route]:
    """The routes for one way in which a rule matches: refusals, then targets."""
    rule = taken.rule
    matchers = [_header(header) for header in headers]
    found = [*_refusals(taken, matchers)]
    targets = [target for target in rule.targets if target.weight > 0]
    if not targets:
        answer = _answer(500, NO_TARGET)
        return [*found, route.Route(name=rule.name, match=_match(matchers), direct_response=answer)]
    total, below = sum(target.weight for target in targets), 0
    for target in targets:
        below += target.weight
        backend = None if target.pool else backends[target.name]
        share = None if below == total else round(_PARTS * below / total)
        found.append(
            route.Route(
                name=rule.name,
                match=_match(matchers, share),
                route=_action(rule, backend, target),
                typed_per_filter_config={
                    **_limits(taken, backend, changed),
                    **(for_pool(target.name) if backend is None else {}),
                },
                request_body_buffer_limit=None if backend is None else RETRY_BUFFER_BYTES,
                response_headers_to_remove=[] if taken.listener.envoy_headers else list(ENVOY_HEADERS),
            )
        )
    return found


def _limits(taken: _Taken, backend: Backend | None, changed: Mapping[str, str]) -> dict[str, protobuf.Any]:
    if taken.policy is None:
        return {}
    rewritten = backend is not None and bool(backend.prefix)
    here = changed if rewritten else {name: why for name, why in changed.items() if name != captured.PATH}
    return route_limits(taken.policy, taken.rule.name, taken.listener, here)


def _refusals(taken: _Taken, matchers: Sequence[route.HeaderMatcher]) -> Iterator[route.Route]:
    """400 for requests that a limit applies to but for a header that it tells users apart by, absent or empty."""
    if taken.policy is None or taken.policy.absent is not Absent.REJECT:
        return
    for limit in taken.policy.rules:
        others = []
        for selector in limit.selectors:
            if selector.match is not Match.DISTINCT:
                wanted = matching(selector)
                wanted.invert_match = selector.invert
                others.append(wanted)
        for selector in limit.selectors:
            if selector.match is Match.DISTINCT:
                text = f"the header {selector.header} is missing: what this request costs is counted by it"
                told = {"message": text, "type": "invalid_request_error", "code": CODE, "param": selector.header}
                yield route.Route(
                    name=f"{taken.rule.name}/without/{selector.header}",
                    match=_match([*matchers, *others, missing_or_empty(selector.header)]),
                    direct_response=_answer(400, json.dumps({"error": told})),
                    response_headers_to_add=[_content_type("application/json")],
                )


def _action(rule: Rule, backend: Backend | None, target: Target) -> route.RouteAction:
    timeout_s = DEFAULT_TIMEOUT_S if rule.timeout_s is None else rule.timeout_s
    # A generation may be silent for minutes: the timeout of the whole bounds it, and nothing else.
    action = route.RouteAction(timeout=seconds(timeout_s), idle_timeout=seconds(0))
    if backend is None:
        action.cluster = names.pool_cluster(target.name)
        return action
    action.cluster = names.backend_cluster(target.name)
    action.auto_host_rewrite = True
    action.retry_policy = _elsewhere()
    if backend.prefix:
        prefix = "/" + backend.prefix.strip("/")
        action.regex_rewrite = matcher.RegexMatchAndSubstitute(
            pattern=matcher.RegexMatcher(regex=f"^{_API_ROOT}(/|$)"),
            substitution=f"{'' if prefix == '/' else _escaped(prefix)}\\1",
        )
    return action


def _elsewhere() -> route.RetryPolicy:
    """Try another endpoint, only for what no server has seen: nothing is generated or counted twice."""
    return route.RetryPolicy(
        retry_on="connect-failure,refused-stream",
        num_retries=3,
        retry_host_predicate=[
            route.RetryPolicyRetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=packed(previous_hosts.PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=5,
    )


def _escaped(substitution: str) -> str:
    return substitution.replace("\\", "\\\\")


def _match(headers: Sequence[route.HeaderMatcher], share: int | None = None) -> route.RouteMatch:
    """Every path; `share`: of all streams, in parts of a million."""
    fraction = None
    if share is not None:
        percent = kinds.FractionalPercent(numerator=share, denominator=kinds.FractionalPercentDenominatorType.MILLION)
        fraction = core.RuntimeFractionalPercent(default_value=percent)
    return route.RouteMatch(prefix="/", headers=list(headers), runtime_fraction=fraction)


def _header(header: HeaderMatch) -> route.HeaderMatcher:
    if header.regex:
        text = matcher.StringMatcher(safe_regex=matcher.RegexMatcher(regex=header.value))
    else:
        text = exactly(header.value)
    return route.HeaderMatcher(name=header.name, string_match=text)


def _answer(status: int, text: str) -> route.DirectResponseAction:
    return route.DirectResponseAction(status=status, body=inline(text))


def _content_type(value: str) -> core.HeaderValueOption:
    return core.HeaderValueOption(
        header=core.HeaderValue(key="content-type", value=value),
        append_action=core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )
