# SPDX-License-Identifier: Apache-2.0
"""The limits that Kubernetes manifests ask for: every BackendTrafficPolicy, with the Gateway and the routes it is for.

The descriptors are those that Envoy Gateway, and the Envoy of `epp up -f`, send for the same manifests. Nothing is
asked of backends, pools or keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from epp.manifests import read_files, resolve_limits, service_rules
from epp.ratelimit.errors import RulesError


def rules_of_manifests(files: Sequence[Path]) -> tuple[list[tuple[str, Mapping[str, object]]], tuple[str, ...]]:
    """(source, document in the Go form) of each domain, and notes. Raises `EppError`."""
    topology = resolve_limits(read_files(files))
    rules = service_rules(topology)
    named = ", ".join(map(str, files))
    if not rules.domains:
        raise RulesError(f"{named}: no limits; give a BackendTrafficPolicy with a global rate limit, for a Gateway")
    notes = (*topology.warnings, *(f"not done: {one}" for one in topology.unsupported))
    return [(named, domain) for domain in rules.domains], notes
