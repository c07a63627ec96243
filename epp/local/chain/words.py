# SPDX-License-Identifier: Apache-2.0
"""Routes and limits in words, for people who check that the gateway does what they meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from epp.contract.aigateway import MODEL_HEADER
from epp.local.chain.left import article
from epp.local.chain.plan import BackendPlan, Plan, PoolPlan
from epp.local.gateway.places import Address
from epp.manifests.limits import Absent, Charge, LimitPolicy, LimitRule, Match, Selector, policy_for
from epp.manifests.topology import HeaderMatch, Listener, Route, Rule, Target

_COUNTED = {
    "TotalToken": "tokens",
    "InputToken": "input tokens",
    "OutputToken": "output tokens",
    "CachedInputToken": "cached input tokens",
    "CacheCreationInputToken": "input tokens written to a cache",
    "ReasoningToken": "reasoning tokens",
}
_ABSENT = {
    Absent.UNLIMITED: "are not limited by it",
    Absent.SHARED: "share one counter",
    Absent.REJECT: "are refused with 400",
}


def route_lines(plan: Plan) -> Iterator[str]:
    """Every rule of every route, where it goes and what limits it, in the order in which they are tried."""
    for listener in plan.topology.listeners:
        routes = [route for route in plan.topology.routes if route.is_on(listener)]
        place = plan.places.listeners[listener.port]
        host = f", host {listener.hostname}" if listener.hostname else ""
        yield f"Gateway {listener.gateway}, listener {listener.name} on http://localhost:{place.port}{host}"
        for route in routes:
            for rule in route.rules:
                yield from _rule_lines(plan, listener, route, rule)
        if not routes:
            yield "  no route: everything is answered with 404"


def counting_line(plan: Plan, redis: str, window: str) -> str:
    """Where and how limits are counted, "" where there are none. Of Redis' URL nothing that may be a secret."""
    if plan.places.ratelimit is None:
        return ""
    return f"limits are counted in {_redis(redis) if redis else 'memory'}, {window or 'fixed'} windows"


def _redis(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port is not None else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


def models_of(rule: Rule) -> list[str]:
    """The models whose requests this rule takes by name."""
    found = [match.value for matches in rule.matches for match in matches if match.name == MODEL_HEADER]
    return list(dict.fromkeys(found))


def _rule_lines(plan: Plan, listener: Listener, route: Route, rule: Rule) -> Iterator[str]:
    asked = " or ".join(_matches(matches) for matches in rule.matches) or "every model"
    total = sum(target.weight for target in rule.targets)
    for number, target in enumerate(rule.targets):
        share = f"{target.weight / total:.0%} to " if len(rule.targets) > 1 and total else ""
        lead = f"  {asked} -> " if number == 0 else " " * (len(asked) + 3) + "-> "
        yield f"{lead}{share}{_where(plan, target)}"
    policy = policy_for(plan.topology.limits, route.name, listener.gateway, listener.name)
    for limit in policy.rules if policy is not None else ():
        if applies(limit, rule):
            yield f"       {limit_words(limit, route)}{_absent_words(policy, limit)}"


def _matches(matches: Sequence[HeaderMatch]) -> str:
    parts = []
    for match in matches:
        if match.name == ":path" and match.regex:
            parts.append(f"path {_path(match.value)}")
            continue
        value = f"/{match.value}/" if match.regex else match.value
        parts.append(value if match.name == MODEL_HEADER else f"{match.name.lstrip(':')}: {value}")
    return " with ".join(sorted(parts, key=lambda part: ": " in part or part.startswith("path "))) or "every model"


def _path(pattern: str) -> str:
    """What a match of a path became (`epp.manifests.routes.path_regex`), as it was written."""
    for end, shown in (("(?:[/?].*)?", "..."), (r"(?:\?.*)?", "")):
        value = pattern.removesuffix(end)
        plain = re.sub(r"\\(.)", r"\1", value)
        if value != pattern and re.escape(plain) == value:
            return plain + shown
    return f"like {pattern}"


def _where(plan: Plan, target: Target) -> str:
    if target.pool:
        pool = next((pool for pool in plan.pools if pool.pool.name == target.name), None)
        return f"pool {target.name}: {_pool(pool)}" if pool is not None else f"pool {target.name}: not there"
    backend = next((backend for backend in plan.backends if backend.backend.name == target.name), None)
    return f"backend {target.name}: {_backend(backend)}" if backend is not None else f"backend {target.name}: not there"


def _pool(plan: PoolPlan) -> str:
    scorers = ", ".join(
        f"{scorer.name} {scorer.weight:g}" for profile in plan.config.checked.profiles for scorer in profile.scorers
    )
    places = [server.place for server in plan.servers]
    picker = f"endpoint picker on :{plan.picker.port} ({scorers or 'no scorer'})"
    return f"{_servers(places, bool(plan.pods))}, {picker}{', with a key' if plan.pool.key is not None else ''}"


def _backend(plan: BackendPlan) -> str:
    tls = f" (TLS, {plan.backend.tls.hostname})" if plan.backend.tls is not None else ""
    key = ", with a key" if plan.backend.key is not None else ""
    return f"{_servers(plan.places, bool(plan.pods))}{tls}, no endpoint picker{key}"


def _servers(places: Sequence[Address], simulated: bool) -> str:
    if not simulated:
        return ", ".join(map(str, places))
    count = len(places)
    hosts = places[0].host if count == 1 else f"{places[0].host} to {places[-1].host}"
    return f"{count} simulated pod{'' if count == 1 else 's'} on {hosts}, port {places[0].port}"


def applies(limit: LimitRule, rule: Rule) -> bool:
    """False where the limit is for a model that this rule does not take."""
    models = models_of(rule)
    wanted = [s for s in limit.selectors if s.header == MODEL_HEADER and s.match is Match.EXACT and models]
    return all((selector.value in models) != selector.invert for selector in wanted)


def limit_words(limit: LimitRule, route: Route) -> str:
    """Such as `1000 tokens an hour for each x-user-id of llama3-1b`."""
    who = "".join(map(_selector_words, sorted(limit.selectors, key=_place)))
    shared = ", all routes together" if limit.shared else ""
    shadow = " (only watched, nobody is refused)" if limit.shadow else ""
    return f"{limit.requests} {_counted(limit, route)} {article(limit.unit)}{who}{shared}{shadow}"


def _counted(limit: LimitRule, route: Route) -> str:
    counted = []
    at_request = limit.at_request
    if at_request is None or at_request.number:
        times = f" (each counts {at_request.number})" if at_request is not None and at_request.number != 1 else ""
        counted.append(f"requests{times}")
    elif at_request.key:
        counted.append(_of_metadata(at_request, route))
    if limit.at_response is not None:
        by_number = f"answers (each counts {limit.at_response.number})"
        counted.append(_of_metadata(limit.at_response, route) if limit.at_response.key else by_number)
    return " and ".join(counted) or "nothing"


def _of_metadata(charge: Charge, route: Route) -> str:
    types = {cost.key: cost.type for cost in route.costs}
    return _COUNTED.get(types.get(charge.key, ""), f'units of "{charge.key}"')


def _place(selector: Selector) -> int:
    """For whom, of which model, and then the rest."""
    return 0 if selector.match is Match.DISTINCT else 1 if selector.header == MODEL_HEADER else 2


def _selector_words(selector: Selector) -> str:
    if selector.match is Match.DISTINCT:
        return f" for each {selector.header}"
    if selector.header == ":path":
        path = f"{selector.value}..." if selector.match is Match.PREFIX else _path(selector.value)
        return f" on {'other paths than' if selector.invert else 'path'} {path}"
    like = "like " if selector.match is Match.REGEX else ""
    if selector.header == MODEL_HEADER:
        return f" of {'models other than ' if selector.invert else ''}{like}{selector.value}"
    return f" where {selector.header.lstrip(':')} is {'not ' if selector.invert else ''}{like}{selector.value}"


def _absent_words(policy: LimitPolicy | None, limit: LimitRule) -> str:
    names = [selector.header for selector in limit.selectors if selector.match is Match.DISTINCT]
    if policy is None or not names:
        return ""
    return f"; requests without {' or '.join(names)} {_ABSENT[policy.absent]}"
