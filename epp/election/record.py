# SPDX-License-Identifier: Apache-2.0
"""The Lease object, as client-go's `resourcelock` reads and writes it.

Durations are whole seconds, times are MicroTime (RFC 3339 in UTC with six digits). Metadata is kept as it was read:
a PUT replaces the object, and labels or owners that somebody gave it must survive.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from epp.kube.resource import LEASES


class LeaseSpec(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`spec`. None is absent; a `holder_identity` of "" is a lease that was given up.

    `preferred_holder` and `strategy` are of coordinated elections: passed on, never read.
    """

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None
    preferred_holder: str | None = None
    strategy: str | None = None


class Lease(msgspec.Struct, frozen=True, rename="camel"):
    """A lease; `metadata.resourceVersion` makes a PUT fail when somebody wrote since."""

    metadata: dict[str, Any]
    spec: LeaseSpec = LeaseSpec()
    api_version: str = LEASES.api_version
    kind: str = LEASES.kind

    @property
    def holder(self) -> str:
        """Who holds it, "" for nobody."""
        return self.spec.holder_identity or ""


def new_lease(namespace: str, name: str, identity: str, duration_s: int, now_s: float) -> Lease:
    """The first record of a lease that was not there. `now_s` is wall clock time."""
    now = micro_time(now_s)
    return Lease({"name": name, "namespace": namespace}, LeaseSpec(identity, duration_s, now, now, 0))


def held(lease: Lease, identity: str, duration_s: int, now_s: float) -> Lease:
    """`lease` renewed by its holder, or taken over by another: then it counts one transition more."""
    old, now = lease.spec, micro_time(now_s)
    if lease.holder == identity:
        acquired, transitions = old.acquire_time or now, old.lease_transitions or 0
    else:
        acquired, transitions = now, (old.lease_transitions or 0) + 1
    spec = msgspec.structs.replace(
        old,
        holder_identity=identity,
        lease_duration_seconds=duration_s,
        acquire_time=acquired,
        renew_time=now,
        lease_transitions=transitions,
    )
    return msgspec.structs.replace(lease, spec=spec)


def given_up(lease: Lease, now_s: float) -> Lease:
    """`lease` held by nobody. One second is the shortest duration the API server accepts."""
    now = micro_time(now_s)
    spec = msgspec.structs.replace(
        lease.spec, holder_identity="", lease_duration_seconds=1, acquire_time=now, renew_time=now
    )
    return msgspec.structs.replace(lease, spec=spec)


def micro_time(at_s: float) -> str:
    """`2026-08-21T10:00:00.000250Z`."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
