# SPDX-License-Identifier: Apache-2.0
"""What a picker may do where it runs: KServe's Role by release, what every release binds besides, and the Role of the
conformance fixture. For `server.rules.allow_only(KSERVE_ROLES["v0.18"], cluster=AUTH_DELEGATOR)`."""

from __future__ import annotations

from tests.apiserver.kinds import GIE, GIE_X, LLM_D
from tests.apiserver.rules import Rule

READ = ("get", "list", "watch")


def rule(group: str, *resources: str, verbs: tuple[str, ...] = READ) -> Rule:
    """A rule of a Role; to read by default."""
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}


_COMMON = (rule("", "pods"), rule("discovery.k8s.io", "endpointslices"))
_LEASES = rule("coordination.k8s.io", "leases", verbs=(*READ, "create", "update", "patch", "delete"))
_THREE = ("inferencepools", "inferenceobjectives", "inferencemodels")
_FIVE = (*_THREE, "inferencemodelrewrites", "inferencepoolimports")
_V18 = (*_COMMON, rule(GIE_X, *_FIVE), rule(GIE, *_THREE), _LEASES)

KSERVE_ROLES: dict[str, tuple[Rule, ...]] = {
    "v0.16": (*_COMMON, rule(GIE_X, "inferencepools", "inferencemodels")),
    "v0.17": (*_COMMON, rule(GIE_X, *_THREE), rule(GIE, *_THREE), _LEASES),
    "v0.18": _V18,
    "v0.20": (*_V18, rule(LLM_D, "inferenceobjectives", "inferencemodelrewrites")),
}

AUTH_DELEGATOR: tuple[Rule, ...] = (
    rule("authentication.k8s.io", "tokenreviews", verbs=("create",)),
    rule("authorization.k8s.io", "subjectaccessreviews", verbs=("create",)),
)
"""The ClusterRole system:auth-delegator."""

CONFORMANCE: tuple[Rule, ...] = (rule("", "pods"), rule(GIE, "inferencepools"))
"""The conformance fixture's: two kinds to read, no metrics authentication, no leases."""
