# SPDX-License-Identifier: Apache-2.0
"""What the command line of `epp gateway` says. Durations are seconds; a port of 0 is any free one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """All flags. `bind_address` is of both ports."""

    config: Path
    port: int = 9004
    metrics_port: int = 9091
    bind_address: str = "127.0.0.1"
    drain_timeout_s: float = 30.0
    log_encoder: str = "json"
    verbosity: int = 2
    watch_loop: bool = False
