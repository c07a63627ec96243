# SPDX-License-Identifier: Apache-2.0
"""The objects we read, with the fields we read of them; what else is in them is skipped unparsed.

Fields bear the API's names by rename. A field that is absent has a neutral default, so that an object is only refused
when a field has a wrong type.
"""

from __future__ import annotations

import msgspec


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """`metadata`. Times are texts as the server writes them, "" when absent."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Condition(msgspec.Struct, frozen=True):
    """A condition of a status."""

    type: str = ""
    status: str = ""


class ContainerStatus(msgspec.Struct, frozen=True, rename="camel"):
    """What became of a container."""

    name: str = ""
    restart_count: int = 0


class PodIp(msgspec.Struct, frozen=True):
    """One of a pod's addresses."""

    ip: str = ""


class PodStatus(msgspec.Struct, frozen=True):
    """`status` of a pod."""

    phase: str = ""
    conditions: list[Condition] | None = None
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: list[PodIp] | None = msgspec.field(default=None, name="podIPs")
    container_statuses: list[ContainerStatus] | None = msgspec.field(default=None, name="containerStatuses")


class Pod(msgspec.Struct, frozen=True):
    """A pod."""

    metadata: Meta
    status: PodStatus = PodStatus()
