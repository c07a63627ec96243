# SPDX-License-Identifier: Apache-2.0
"""What the tests of manifests share: texts to documents and topologies, and a small gateway to build on."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from epp.manifests import Documents, ManifestErrors, read_files, resolve
from epp.manifests.topology import Topology

DATA = Path(__file__).with_name("data")
ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "deploy" / "local"

GATEWAY = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: any
  listeners: [{name: http, protocol: HTTP, port: 80}]
"""
ROUTE = """
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: route}
spec:
  parentRefs: [{name: gw}]
  rules:
    - matches: [{headers: [{name: x-ai-eg-model, value: m}]}]
      backendRefs: [{name: b}]
  llmRequestCosts: [{metadataKey: total, type: TotalToken}]
"""
BACKEND = """
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: b}
spec:
  schema: {name: OpenAI}
  backendRef: {kind: Service, name: svc, port: 80}
---
apiVersion: v1
kind: Service
metadata: {name: svc}
spec: {ports: [{port: 80}]}
"""
POLICY = """
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: limit}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]
  rateLimit:
    type: Global
    global:
      rules:
        - clientSelectors: [{headers: [{name: x-user-id, type: Distinct}]}]
          limit: {requests: 10, unit: Hour}
"""
SMALL = GATEWAY + ROUTE + BACKEND
"""A gateway with one model on one backend."""


def documents(text: str) -> Documents:
    """What a text holds, read as stdin."""
    return read_files([Path("-")], stdin=io.StringIO(text))


def topology(
    text: str,
    *,
    pools: Mapping[str, Sequence[str]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Topology:
    """The topology of a text; nothing of the process's environment."""
    return resolve(documents(text), pools=pools, environ=environ or {})


def mistakes(text: str, **wishes: Mapping[str, str]) -> tuple[str, ...]:
    """What is wrong with a text; each one line."""
    with pytest.raises(ManifestErrors) as caught:
        topology(text, **wishes)  # type: ignore[arg-type]
    assert all("\n" not in line for line in caught.value.mistakes)
    return caught.value.mistakes


def told(text: str, **wishes: Mapping[str, str]) -> list[str]:
    """What is unsupported in a text."""
    return [str(item) for item in topology(text, **wishes).unsupported]  # type: ignore[arg-type]


def swap(text: str, old: str, new: str) -> str:
    """`text` with `old`, which must be there, replaced."""
    assert old in text, old
    return text.replace(old, new)
