# SPDX-License-Identifier: Apache-2.0
"""Headers that limits are counted by and that change on the way to a server.

Envoy reads a descriptor's headers again when the stream is over. By then a key that was injected stands in the place of
the client's `authorization`, and a backend's host name and path in the place of the client's: tokens would be booked
for nobody, and a key would be told to the rate limit service. So such a header is copied into dynamic metadata while it
is still the client's, and what is booked at the end is booked under the copy.
"""

from __future__ import annotations

from collections.abc import Mapping

from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.filters.http.header_to_metadata import v3 as copying
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as manager
from envoy_data_plane.envoy.type.metadata import v3 as metadata

from epp.contract.errors import StartError
from epp.local.gateway.messages import http_filter
from epp.local.gateway.secrets import keys
from epp.manifests.limits import Entry, LimitPolicy, Match, Source, descriptors
from epp.manifests.topology import Topology

NAMESPACE = "epp.limits"
PATH = ":path"
ORIGINAL_PATH = "x-envoy-original-path"
"""Where Envoy keeps a path that it rewrote; absent where it did not."""


def changed(topology: Topology) -> Mapping[str, str]:
    """Request headers that are not the client's any more when the stream is over, and what changes them."""
    found: dict[str, str] = {}
    for backend in topology.backends:
        if backend.prefix:
            found[PATH] = f"the path prefix of {backend.name}"
        if backend.endpoints:
            found |= dict.fromkeys((":authority", "host"), f"the host name of {backend.name}")
    for cluster, key in keys(topology):
        found[key.header.lower()] = f"the API key for {cluster}"
    return found


def check(policies: tuple[LimitPolicy, ...], headers: Mapping[str, str]) -> None:
    """Raises `StartError` for a limit that books at the end and asks for the value of a header that has changed."""
    for policy in policies:
        for selector in (one for rule in policy.rules if rule.at_response is not None for one in rule.selectors):
            if selector.match is not Match.DISTINCT and selector.header in headers and selector.header != PATH:
                raise StartError(
                    f"BackendTrafficPolicy {policy.name} books tokens by the value of the header {selector.header},"
                    f" which {headers[selector.header]} overwrites: ask for another header, or type Distinct"
                )


def copy_filter(policies: tuple[LimitPolicy, ...], headers: Mapping[str, str]) -> manager.HttpFilter | None:
    """The filter that copies, before the rate limits; None: there is nothing to copy."""
    rules: dict[str, copying.ConfigRule] = {}
    for entry in (entry for policy in policies for one in descriptors(policy, "") for entry in one.entries):
        selector = entry.selector
        if selector is None or selector.header not in headers or entry.source is Source.MATCH:
            continue
        name = _name(entry)
        pair = copying.ConfigKeyValuePair(metadata_namespace=NAMESPACE, key=name, value=entry.value)
        if entry.source is Source.HEADER:
            rules[name] = copying.ConfigRule(header=selector.header, on_header_present=pair)
        else:
            rules[name] = copying.ConfigRule(header=selector.header, on_header_missing=pair)
    if not rules:
        return None
    return http_filter("envoy.filters.http.header_to_metadata", copying.Config(request_rules=list(rules.values())))


def copied(entry: Entry) -> route.RateLimitAction:
    """The entry, from the copy; none where the header was not there (HEADER), or was (MISSING)."""
    path = metadata.MetadataKey(key=NAMESPACE, path=[metadata.MetadataKeyPathSegment(key=_name(entry))])
    return route.RateLimitAction(metadata=route.RateLimitActionMetaData(descriptor_key=entry.key, metadata_key=path))


def _name(entry: Entry) -> str:
    header = entry.selector.header if entry.selector is not None else ""
    return header if entry.source is Source.HEADER else f"{header} {entry.key}"
