# SPDX-License-Identifier: Apache-2.0
"""Kubernetes manifests of a gateway for models, read without Kubernetes: what they ask for, as plain values.

    read_files(paths) -> Documents          read: YAML, Lists, Markdown, endpoint lists; each field checked (kinds)
    resolve(documents) -> Topology          references followed: gateways, routes, targets, services, secrets, policies
    service_rules(topology) -> ServiceRules the limits as rules for the rate limit service

topology, limits: the values that come out. fields: what the fields of a kind may be. See docs/manifests.md.
"""

from __future__ import annotations

from epp.manifests.documents import Documents, ManifestErrors
from epp.manifests.read import read_files
from epp.manifests.resolve import resolve, resolve_limits
from epp.manifests.service import service_rules

__all__ = ["Documents", "ManifestErrors", "read_files", "resolve", "resolve_limits", "service_rules"]
