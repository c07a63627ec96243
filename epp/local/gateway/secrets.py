# SPDX-License-Identifier: Apache-2.0
"""Keys for upstreams, kept out of everything but files of their own.

A key is in one file, mode 0600, in a directory of mode 0700; the bootstrap names the file, Envoy reads it. So no key
is in a command line, in the bootstrap, or in what Envoy's admin interface shows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from epp.contract.errors import StartError
from epp.local.gateway.names import backend_cluster, pool_cluster
from epp.manifests.topology import ApiKey, Topology


@dataclass(frozen=True, slots=True)
class SecretFiles:
    """Where keys are: one file for each cluster that needs one."""

    directory: Path

    def key_file(self, cluster: str) -> Path:
        """The file with the key of `cluster`; Kubernetes names have no `_`, so no two clusters share one."""
        return self.directory / f"{cluster.replace('/', '_')}.key"


def keys(topology: Topology) -> Iterator[tuple[str, ApiKey]]:
    """Every cluster that needs a key, with its key."""
    for pool in topology.pools:
        if pool.key is not None:
            yield pool_cluster(pool.name), pool.key
    for backend in topology.backends:
        if backend.key is not None:
            yield backend_cluster(backend.name), backend.key


def write_keys(topology: Topology, secrets: SecretFiles) -> None:
    """Write every key file. Raises `StartError` for a key that no header can carry; the message does not show it."""
    for cluster, key in keys(topology):
        text = key.key.text
        if not text or not all(" " <= character <= "~" for character in text) or text != text.strip():
            raise StartError(f"the API key for {cluster} is empty or has characters that no header may carry")
        write_private(secrets.key_file(cluster), text)


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read; a symbolic link in its place is an error. Raises `StartError`."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror or error}") from None


def private_directory(path: Path) -> None:
    """Make `path` a directory that its owner alone may enter. Raises `StartError`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise StartError(f"cannot make {path} a private directory: {error.strerror or error}") from None
