# SPDX-License-Identifier: Apache-2.0
"""The kinds of objects the stand-in serves, built-in ones and custom resources, and how a text names one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. Where the real server treats kinds differently, the difference is a field here.

    custom                  it comes from a CustomResourceDefinition: another order of keys, items of lists say their kind
    create_on_update        PUT of what is not there makes it (leases)
    unconditional_update    PUT without a resource version is accepted
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = False
    custom: bool = False
    generation: bool = False
    create_on_update: bool = False
    unconditional_update: bool = True
    verbs: tuple[str, ...] = VERBS
    short: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """`group/version`, or the version alone in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def place(self) -> tuple[str, str]:
        """Group and plural: what roles and messages speak of."""
        return self.group, self.plural

    @property
    def qualified(self) -> str:
        """As messages name it: `pods`, `leases.coordination.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def opening(self) -> bytes:
        """The first bytes of every object of the kind, in the order of keys that the real server writes."""
        if self.custom:
            return f'{{"apiVersion":"{self.api_version}","kind":"{self.kind}"'.encode()
        return f'{{"kind":"{self.kind}","apiVersion":"{self.api_version}"'.encode()


def _custom(
    group: str, version: str, plural: str, kind: str, *, status: bool = True, short: tuple[str, ...] = ()
) -> Kind:
    return Kind(
        group,
        version,
        plural,
        kind,
        status=status,
        custom=True,
        generation=True,
        unconditional_update=False,
        short=short,
    )


GIE, GIE_X, LLM_D = "inference.networking.k8s.io", "inference.networking.x-k8s.io", "llm-d.ai"

PODS = Kind("", "v1", "pods", "Pod", status=True, generation=True, short=("po",))
LEASES = Kind("coordination.k8s.io", "v1", "leases", "Lease", create_on_update=True, unconditional_update=False)
TOKEN_REVIEWS = Kind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False, verbs=("create",))
ACCESS_REVIEWS = Kind(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False, verbs=("create",)
)
SELF_REVIEWS = Kind(
    "authorization.k8s.io",
    "v1",
    "selfsubjectaccessreviews",
    "SelfSubjectAccessReview",
    namespaced=False,
    verbs=("create",),
)
POOLS = _custom(GIE, "v1", "inferencepools", "InferencePool", short=("infpool",))

KINDS: tuple[Kind, ...] = (
    PODS,
    Kind("", "v1", "namespaces", "Namespace", namespaced=False, status=True, short=("ns",)),
    Kind("", "v1", "nodes", "Node", namespaced=False, status=True, short=("no",)),
    Kind("", "v1", "services", "Service", status=True, short=("svc",)),
    Kind("", "v1", "configmaps", "ConfigMap", short=("cm",)),
    Kind("", "v1", "secrets", "Secret"),
    Kind("", "v1", "events", "Event", short=("ev",)),
    Kind("events.k8s.io", "v1", "events", "Event", short=("ev",)),
    Kind("apps", "v1", "deployments", "Deployment", status=True, generation=True, short=("deploy",)),
    Kind("apps", "v1", "replicasets", "ReplicaSet", status=True, generation=True, short=("rs",)),
    Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", generation=True),
    LEASES,
    TOKEN_REVIEWS,
    ACCESS_REVIEWS,
    SELF_REVIEWS,
    POOLS,
    _custom(GIE_X, "v1alpha2", "inferencepools", "InferencePool", short=("xinfpool",)),
    _custom(GIE_X, "v1alpha2", "inferenceobjectives", "InferenceObjective"),
    _custom(GIE_X, "v1alpha2", "inferencemodelrewrites", "InferenceModelRewrite"),
    _custom(GIE_X, "v1alpha2", "inferencemodels", "InferenceModel"),
    _custom(GIE_X, "v1alpha1", "inferencepoolimports", "InferencePoolImport"),
    _custom(LLM_D, "v1alpha2", "inferenceobjectives", "InferenceObjective"),
    _custom(LLM_D, "v1alpha2", "inferencemodelrewrites", "InferenceModelRewrite"),
    _custom("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute"),
)

GVP = tuple[str, str, str]
BY_GVP: dict[GVP, Kind] = {(one.group, one.version, one.plural): one for one in KINDS}


def find_kind(what: Any) -> Kind:
    """The kind that `what` names: a Kind, anything with group, version and plural, or a text.

    A text is a plural, a kind or a short name, alone or followed by its group: `pods`, `InferencePool`,
    `inferencepools.inference.networking.x-k8s.io`. Alone, the first of the table is meant.
    """
    if isinstance(what, Kind):
        return what
    if not isinstance(what, str):
        return BY_GVP[what.group, what.version, what.plural]
    name, _, group = what.partition(".")
    for one in KINDS:
        if name in (one.plural, one.kind, *one.short) and group in ("", one.group):
            return one
    raise KeyError(f"no kind is called {what!r}")


def kind_of(body: dict[str, Any]) -> Kind:
    """The kind that an object says it is, by apiVersion and kind."""
    for one in KINDS:
        if (one.api_version, one.kind) == (body.get("apiVersion"), body.get("kind")):
            return one
    raise KeyError(f"no kind is apiVersion {body.get('apiVersion')!r}, kind {body.get('kind')!r}")
