# SPDX-License-Identifier: Apache-2.0
"""Sees at once that a lease was given up, by a watch on it. Without it a candidate sees that at its next turn, 2 to
4.4 s later, and for so long nobody would be active."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import msgspec

from epp.election.record import LeaseSpec
from epp.kube.api import Api
from epp.kube.objects import Meta
from epp.kube.reflector import Reflector
from epp.kube.resource import LEASES


class _Seen(msgspec.Struct, frozen=True):
    metadata: Meta
    spec: LeaseSpec = LeaseSpec()


def lease_watch(api: Api, namespace: str, name: str, free: Callable[[], None], rng: random.Random) -> Reflector[_Seen]:
    """What to `run`: calls `free` when the lease is there and nobody holds it, and when it is not there.

    Whoever may not watch is not told: the election has its turns all the same.
    """

    def changed(leases: Mapping[str, _Seen]) -> None:
        if not any(lease.spec.holder_identity for lease in leases.values()):
            free()

    return Reflector(
        api, LEASES, namespace, _Seen, changed, field_selector=f"metadata.name={name}", told=lambda _: None, rng=rng
    )
