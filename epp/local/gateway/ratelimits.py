# SPDX-License-Identifier: Apache-2.0
"""Rate limits: the filter that asks the service, and what a route asks it.

Each rule of a policy asks twice. At the request: is there anything left, at the cost that is known then (often 0). When
the stream is over: what it cost in the end, which is booked without an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.ratelimit import v3 as service
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.filters.http.ratelimit import v3 as ratelimit
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as manager
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google import protobuf

from epp.local.gateway import names
from epp.local.gateway.captured import ORIGINAL_PATH, copied
from epp.local.gateway.messages import exactly, grpc, http_filter, packed, seconds
from epp.manifests.limits import Charge, Descriptor, Entry, LimitPolicy, Match, Selector, Source, descriptors
from epp.manifests.topology import Listener

TIMEOUT_S = 1.0
"""How long a request waits for the service before it passes."""

_DEFAULT_DOMAIN = "epp"
_Headers = ratelimit.RateLimitXRateLimitHeadersRfcVersion


def ratelimit_filter(listeners: Sequence[Listener]) -> manager.HttpFilter:
    """The filter; routes without a configuration of their own pass. The service being away lets requests pass.

    `listeners` share one Envoy listener: `x-envoy-ratelimited` is there if one of them wants it, and `x-ratelimit-`
    headers are for those alone that do.
    """
    config = ratelimit.RateLimit(
        # Every route that asks anything names its own domain.
        domain=_DEFAULT_DOMAIN,
        timeout=seconds(TIMEOUT_S),
        failure_mode_deny=False,
        rate_limit_service=service.RateLimitServiceConfig(
            grpc_service=grpc(names.RATELIMIT_CLUSTER, TIMEOUT_S), transport_api_version=core.ApiVersion.V3
        ),
        enable_x_ratelimit_headers=_Headers.DRAFT_VERSION_03 if _headers_wanted(listeners) else _Headers.OFF,
        disable_x_envoy_ratelimited_header=not any(listener.envoy_headers for listener in listeners),
    )
    return http_filter(names.RATELIMIT_FILTER, config)


def route_limits(
    policy: LimitPolicy, rule_name: str, listener: Listener, changed: Mapping[str, str]
) -> dict[str, protobuf.Any]:
    """Per-filter configuration of a route that took the route rule `rule_name`. `changed`: headers that are not the
    client's at the end, see `captured`."""
    option = (
        route.RateLimitXRateLimitOption.UNSPECIFIED
        if listener.rate_limit_headers
        else route.RateLimitXRateLimitOption.OFF
    )
    limits = [limit for one in descriptors(policy, rule_name) for limit in _limits(one, option, changed)]
    config = ratelimit.RateLimitPerRoute(domain=listener.domain, rate_limits=limits)
    return {names.RATELIMIT_FILTER: packed(config)}


def missing(header: str) -> route.HeaderMatcher:
    """Matches a request in which `header` is not there; sent empty, it is a value like others."""
    return route.HeaderMatcher(name=header, present_match=True, invert_match=True)


def missing_or_empty(header: str) -> route.HeaderMatcher:
    """Matches a request in which `header` says nothing."""
    return route.HeaderMatcher(name=header, string_match=exactly(""), treat_missing_header_as_empty=True)


def matching(selector: Selector) -> route.HeaderMatcher:
    """Matches where the header has the selector's value; `invert` is for the caller."""
    if selector.match is Match.REGEX:
        text = matcher.StringMatcher(safe_regex=matcher.RegexMatcher(regex=selector.value))
    elif selector.match is Match.PREFIX:
        text = matcher.StringMatcher(prefix=selector.value)
    else:
        text = exactly(selector.value)
    return route.HeaderMatcher(name=selector.header, string_match=text)


def _headers_wanted(listeners: Sequence[Listener]) -> bool:
    return any(listener.rate_limit_headers for listener in listeners)


def _limits(
    descriptor: Descriptor, option: route.RateLimitXRateLimitOption, changed: Mapping[str, str]
) -> list[route.RateLimit]:
    rule = descriptor.rule
    actions = [_action(entry) for entry in descriptor.entries]
    found = [route.RateLimit(actions=actions, hits_addend=_addend(rule.at_request), x_ratelimit_option=option)]
    if rule.at_response is not None:
        late = [_action_at_end(entry, changed) for entry in descriptor.entries]
        found.append(route.RateLimit(actions=late, hits_addend=_addend(rule.at_response), apply_on_stream_done=True))
    return found


def _addend(charge: Charge | None) -> route.RateLimitHitsAddend | None:
    if charge is None:
        return None
    if charge.number is not None:
        return route.RateLimitHitsAddend(number=charge.number)
    return route.RateLimitHitsAddend(format=f"%DYNAMIC_METADATA({charge.namespace}:{charge.key})%")


def _action_at_end(entry: Entry, changed: Mapping[str, str]) -> route.RateLimitAction:
    selector = entry.selector
    if selector is None or selector.header not in changed:
        return _action(entry)
    if entry.source is Source.MATCH:
        return _action(replace(entry, selector=replace(selector, header=ORIGINAL_PATH)))
    return copied(entry)


def _action(entry: Entry) -> route.RateLimitAction:
    selector = entry.selector
    if selector is None:
        constant = route.RateLimitActionGenericKey(descriptor_key=entry.key, descriptor_value=entry.value)
        return route.RateLimitAction(generic_key=constant)
    if entry.source is Source.HEADER:
        header = route.RateLimitActionRequestHeaders(header_name=selector.header, descriptor_key=entry.key)
        return route.RateLimitAction(request_headers=header)
    absent = entry.source is Source.MISSING
    value_match = route.RateLimitActionHeaderValueMatch(
        descriptor_key=entry.key,
        descriptor_value=entry.value,
        expect_match=absent or not selector.invert,
        headers=[missing(selector.header) if absent else matching(selector)],
    )
    return route.RateLimitAction(header_value_match=value_match)
