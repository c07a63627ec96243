# SPDX-License-Identifier: Apache-2.0
"""How Envoy is started with a bootstrap in a file."""

from __future__ import annotations

from pathlib import Path


def envoy_argv(binary: Path, bootstrap: Path) -> list[str]:
    """The command line. `bootstrap` ends in `.json`; nothing secret is in either."""
    return [
        *(str(binary), "--config-path", str(bootstrap)),
        *("--concurrency", "1"),
        *("--log-level", "warning"),
        "--disable-hot-restart",
    ]
