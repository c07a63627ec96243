# SPDX-License-Identifier: Apache-2.0
"""Envoy's bootstrap for a topology, and how Envoy is started with it.

Importing this module takes the better part of a second (the typed messages of Envoy's API), so import it where it is
used. Nothing in the bootstrap is secret: keys are files that it names.
"""

from __future__ import annotations

import json
from pathlib import Path

from betterproto2 import Casing
from envoy_data_plane.envoy.config.bootstrap import v3 as envoy
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.overload import v3 as overload
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections import v3 as connections

from epp.local.gateway.clusters import clusters
from epp.local.gateway.credentials import secret
from epp.local.gateway.listeners import listeners
from epp.local.gateway.messages import UNLIMITED, packed, socket
from epp.local.gateway.places import Places
from epp.local.gateway.secrets import SecretFiles, keys, private_directory, write_keys, write_private
from epp.manifests.topology import Topology


def bootstrap(
    topology: Topology,
    places: Places,
    secrets: SecretFiles,
    *,
    access_log: Path | None = None,
    roots: Path | None = None,
) -> envoy.Bootstrap:
    """The whole configuration.

    `access_log`: file for one line of JSON a request. `roots`: file with certificate authorities in the place of the
    system's. Raises `StartError` where a backend needs the system's and there are none.
    """
    return envoy.Bootstrap(
        admin=envoy.Admin(address=socket(places.admin)),
        node=core.Node(id="epp-local", cluster="epp-local"),
        # Nobody collects statistics here; they are brought up to date when somebody asks the admin port.
        stats_flush_on_admin=True,
        overload_manager=overload.OverloadManager(resource_monitors=[_connections()]),
        static_resources=envoy.BootstrapStaticResources(
            listeners=listeners(topology, places, access_log),
            clusters=clusters(topology, places, roots),
            secrets=[secret(cluster, secrets) for cluster, _ in keys(topology)],
        ),
    )


def as_json(message: envoy.Bootstrap) -> str:
    """The bootstrap as Envoy reads it with `--config-path`, every extension spelled out under its `@type`."""
    return json.dumps(message.to_dict(casing=Casing.SNAKE), indent=1)


def write(
    directory: Path,
    topology: Topology,
    places: Places,
    *,
    access_log: Path | None = None,
    roots: Path | None = None,
) -> Path:
    """Write the bootstrap and the keys into `directory`, for its owner alone. Returns the bootstrap's path, which ends
    in `.json`. Raises `StartError`."""
    private_directory(directory)
    secrets = SecretFiles(directory)
    write_keys(topology, secrets)
    path = directory / "envoy.json"
    write_private(path, as_json(bootstrap(topology, places, secrets, access_log=access_log, roots=roots)))
    return path


def _connections() -> overload.ResourceMonitor:
    return overload.ResourceMonitor(
        name="envoy.resource_monitors.global_downstream_max_connections",
        typed_config=packed(connections.DownstreamConnectionsConfig(max_active_downstream_connections=UNLIMITED)),
    )
