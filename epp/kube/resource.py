# SPDX-License-Identifier: Apache-2.0
"""The kinds of objects we deal with, and where the API server keeps them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind. `group` "" is the core group; `plural` is the name in paths and in roles."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """`group/version`, or the version alone in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str = "") -> str:
        """The path of one object, or of all of them; without a namespace, of all namespaces."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if namespace is not None else ""
        return f"{root}{place}/{self.plural}" + (f"/{name}" if name else "")

    def __str__(self) -> str:
        """As roles and people name it: `pods`, `inferencepools.inference.networking.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


GIE_GROUP = "inference.networking.k8s.io"
GIE_X_GROUP = "inference.networking.x-k8s.io"
LLM_D_GROUP = "llm-d.ai"

PODS = Resource("", "v1", "pods", "Pod")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview")
SUBJECT_ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview")
POOLS = Resource(GIE_GROUP, "v1", "inferencepools", "InferencePool")
POOLS_X = Resource(GIE_X_GROUP, "v1alpha2", "inferencepools", "InferencePool")
OBJECTIVES = Resource(LLM_D_GROUP, "v1alpha2", "inferenceobjectives", "InferenceObjective")
OBJECTIVES_X = Resource(GIE_X_GROUP, "v1alpha2", "inferenceobjectives", "InferenceObjective")
REWRITES = Resource(LLM_D_GROUP, "v1alpha2", "inferencemodelrewrites", "InferenceModelRewrite")
REWRITES_X = Resource(GIE_X_GROUP, "v1alpha2", "inferencemodelrewrites", "InferenceModelRewrite")
MODELS_X = Resource(GIE_X_GROUP, "v1alpha2", "inferencemodels", "InferenceModel")
