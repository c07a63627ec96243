# SPDX-License-Identifier: Apache-2.0
"""What the lease and its candidates are called, as the Go EPP calls them, so that replicas of both contend for one."""

from __future__ import annotations

import hashlib
import re
import uuid

MAX_NAME = 253
"""The longest name of a Lease. Its parts between dots may be longer than a DNS label's 63 characters."""

_DIGEST = 10
_OF_DEPLOYMENT = re.compile(r"(.+)-[a-z0-9]+-[a-z0-9]{5}")
_OF_STATEFUL_SET = re.compile(r"(.+)-[0-9]+")


def lease_name(namespace: str, pool: str) -> str:
    """`epp-<namespace>-<pool>.llm-d.ai`. The Go EPP has no lease where that is over 253 characters; ours is cut then,
    and a digest of the whole takes the place of what was cut."""
    stem = f"epp-{namespace}-{pool}"
    room = MAX_NAME - len(".llm-d.ai")
    if len(stem) > room:
        digest = hashlib.sha256(stem.encode()).hexdigest()[:_DIGEST]
        # A part of a name must not end with a dot or a hyphen.
        stem = f"{stem[: room - _DIGEST - 1].rstrip('.-')}-{digest}"
    return f"{stem}.llm-d.ai"


def pool_of_pod(pod_name: str) -> str:
    """Where no pool is named (--endpoint-selector), our own Deployment names it: the pod's name without
    `-<hash>-<hash>`. A pod of a StatefulSet (`epp-0`) goes by the set's name, any other by its own."""
    for form in (_OF_DEPLOYMENT, _OF_STATEFUL_SET):
        match = form.fullmatch(pod_name)
        if match is not None:
            return match[1]
    return pod_name


def new_identity(name: str) -> str:
    """`<name>_<uuid>`, for `name` the pod's or the host's. Never from a seed: two processes of one seed on one host
    would take each other for themselves, and both lead."""
    return f"{name}_{uuid.uuid4()}"
