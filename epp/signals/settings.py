# SPDX-License-Identifier: Apache-2.0
"""How endpoints are scraped, checked once when it is put together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from epp.contract.errors import ConfigError
from epp.signals.engine.recognise import Engines
from epp.signals.poll.buffers import MIB

DEFAULT_INTERVAL_S = 0.05
DEFAULT_LOOP_SHARE = 0.5
LONGEST_IDLE_S = 60.0


@dataclass(frozen=True, slots=True)
class ScrapeSettings:
    """How endpoints are scraped.

    * interval_s: between two polls of one endpoint; timeout_s: for one poll, connecting included
    * idle_interval_s: between two polls while no requests are routed; no effect below interval_s
    * loop_share: the most that reading pages may take of the event loop, above 0 and at most 1
    * filtered: ask for the families in use alone where an endpoint can do that
    * port: where metrics pages are, 0 for the endpoint's own port
    * verify_tls: check certificates, when `scheme` is https, against `ca_file` or, without one, the system's CAs
    * client_cert_file, client_key_file: what to show to endpoints that ask for a certificate; "" for nothing
    * engines: the names of the signals, and how an endpoint's engine is found
    * max_page_bytes: larger pages are refused; max_backoff_s: longest pause after failures
    """

    interval_s: float = DEFAULT_INTERVAL_S
    idle_interval_s: float = 0.0
    loop_share: float = DEFAULT_LOOP_SHARE
    filtered: bool = True
    timeout_s: float = 1.0
    scheme: str = "http"
    path: str = "/metrics"
    port: int = 0
    verify_tls: bool = False
    ca_file: str = ""
    client_cert_file: str = ""
    client_key_file: str = ""
    engines: Engines = field(default_factory=Engines)
    max_page_bytes: int = 8 * MIB
    max_backoff_s: float = 5.0

    def __post_init__(self) -> None:
        if self.scheme not in ("http", "https"):
            raise ConfigError(f"metrics scheme is {self.scheme!r}; it must be http or https")
        if not self.path.startswith("/") or not self.path.isascii() or not self.path.isprintable() or " " in self.path:
            raise ConfigError(f"metrics path is {self.path!r}; it must start with / and have no blanks, as /metrics")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"metrics port is {self.port}; it must be 1 to 65535, or 0 for the endpoint's own port")
        for name in ("interval_s", "timeout_s", "max_backoff_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"metrics {name} is {value}; it must be above 0 seconds")
        if not 0 <= self.idle_interval_s <= LONGEST_IDLE_S:
            raise ConfigError(
                f"metrics idle_interval_s is {self.idle_interval_s:g}; it must be 0 to {LONGEST_IDLE_S:g} seconds"
            )
        if not 0 < self.loop_share <= 1:
            raise ConfigError(f"metrics loop share is {self.loop_share}; it must be above 0 and at most 1")
