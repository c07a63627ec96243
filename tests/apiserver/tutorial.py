# SPDX-License-Identifier: Apache-2.0
"""The objects that KServe's controller makes of the tutorial's LLMInferenceService `qwen-instruct`, by release."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.apiserver.objects import inference_model, pod, pool_v1, pool_v1alpha2

NAMESPACE = "kserve-test"
POOL = "qwen-instruct-inference-pool"
EPP = "qwen-instruct-epp-service"
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
SELECTOR = {
    "app.kubernetes.io/name": "qwen-instruct",
    "app.kubernetes.io/part-of": "llminferenceservice",
    "kserve.io/component": "workload",
}
LABELS = SELECTOR | {
    "app.kubernetes.io/component": "llminferenceservice-workload",
    "llm-d.ai/role": "both",
    "pod-template-hash": "6899dd5fb8",
}
RELEASES = ("v0.16", "v0.17", "v0.18", "v0.20")
_SUFFIXES = ("tqwn8", "k5x2p", "zz9ab", "m0m0m")


def pod_name(number: int) -> str:
    """The name of the pod with that number, from 0."""
    suffix = _SUFFIXES[number] if number < len(_SUFFIXES) else f"n{number:04d}"
    return f"qwen-instruct-kserve-6899dd5fb8-{suffix}"


def tutorial_pods(addresses: Sequence[str], *, port: int = 8000, first: int = 0) -> list[dict[str, Any]]:
    """A Ready pod at each address (IP alone), numbered from `first`."""
    return [
        pod(pod_name(first + number), address, LABELS, namespace=NAMESPACE, port=port)
        for number, address in enumerate(addresses)
    ]


def tutorial(
    release: str = "v0.20",
    pods: int | Sequence[str] = 4,
    *,
    port: int = 8000,
) -> list[dict[str, Any]]:
    """Pool or pools, pods, and before v0.17 the InferenceModel. `pods` is a number (127.0.1.1 and on) or addresses.

    `port` is the pool's target port, 8000 in KServe.
    """
    if release not in RELEASES:
        raise ValueError(f"release {release!r} is none of {', '.join(RELEASES)}")
    addresses = [f"127.0.{1 + n // 250}.{1 + n % 250}" for n in range(pods)] if isinstance(pods, int) else pods
    objects = [pool_v1alpha2(POOL, SELECTOR, namespace=NAMESPACE, port=port, epp=EPP)]
    if release == "v0.16":
        model = inference_model("qwen-instruct-inference-model", POOL, MODEL, namespace=NAMESPACE)
        return [*objects, model, *tutorial_pods(addresses, port=port)]
    v1 = pool_v1(POOL, SELECTOR, namespace=NAMESPACE, ports=(port,), epp=EPP)
    return [v1, *objects, *tutorial_pods(addresses, port=port)]
