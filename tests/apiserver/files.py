# SPDX-License-Identifier: Apache-2.0
"""What clients find on disk: the service account directory as kubelet mounts it, and kubeconfig files."""

from __future__ import annotations

import base64
import os
import shutil
from itertools import count
from pathlib import Path
from typing import Any

import yaml


class ServiceAccountDir:
    """`token`, `ca.crt` and `namespace` as links through `..data`, which is swapped in one step.

    A file opened before a swap goes on being the old one, as in a real mount.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        self._turn = count(1)
        self._last: Path | None = None

    def write(self, **files: bytes) -> None:
        """Set all the files at once. Names are `token`, `ca_crt` (for ca.crt) and `namespace`."""
        folder = self.path / f"..2026_01_01_00_00_00.{next(self._turn):09d}"
        folder.mkdir()
        for name, content in files.items():
            (folder / name.replace("_", ".")).write_bytes(content)
        fresh = self.path / "..data_tmp"
        fresh.symlink_to(folder.name)
        os.replace(fresh, self.path / "..data")
        for name in files:
            link = self.path / name.replace("_", ".")
            if not link.is_symlink():
                link.symlink_to(Path("..data") / link.name)
        if self._last is not None:
            shutil.rmtree(self._last)
        self._last = folder


def kubeconfig(
    path: Path,
    *,
    server: str,
    namespace: str,
    ca: Path,
    token: str = "",
    token_file: Path | None = None,
    certificate: tuple[Path, Path] | None = None,
    inline: bool = False,
) -> Path:
    """Write a kubeconfig; `inline` puts certificates and keys into it (the `-data` fields)."""

    def entry(name: str, file: Path) -> dict[str, str]:
        if inline:
            return {f"{name}-data": base64.b64encode(file.read_bytes()).decode()}
        return {name: str(file)}

    user: dict[str, Any] = {}
    if token:
        user["token"] = token
    if token_file is not None:
        user["tokenFile"] = str(token_file)
    if certificate is not None:
        user |= entry("client-certificate", certificate[0]) | entry("client-key", certificate[1])
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "stand-in", "cluster": {"server": server, **entry("certificate-authority", ca)}}],
        "contexts": [
            {"name": "stand-in", "context": {"cluster": "stand-in", "user": "tester", "namespace": namespace}}
        ],
        "current-context": "stand-in",
        "preferences": {},
        "users": [{"name": "tester", "user": user}],
    }
    path.write_text(yaml.safe_dump(content))
    path.chmod(0o600)
    return path
