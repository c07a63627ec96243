# SPDX-License-Identifier: Apache-2.0
"""Which source of endpoints is in force: the configuration's own, else --endpoints-file, else --endpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable

from epp.config.build import Assembly
from epp.contract.discovery import Discovery
from epp.discovery.file import FileDiscovery
from epp.discovery.flags import StaticDiscovery, parse_endpoints
from epp.service.flags.options import Options

log = logging.getLogger("epp.service")


def source_of(options: Options, assembly: Assembly) -> Discovery | None:
    """The source, None when there is none. Logs which others are not used; they are not even opened."""
    given: list[tuple[str, Callable[[], Discovery]]] = []
    if assembly.discovery is not None:
        declared = assembly.discovery
        given.append((f"plugin '{declared.name}' of the configuration", lambda: declared.object))
    if options.endpoints_file is not None:
        path = options.endpoints_file
        given.append(("--endpoints-file", lambda: FileDiscovery(str(path))))
    if options.endpoints:
        addresses = ",".join(map(str, options.endpoints))
        given.append(("--endpoints", lambda: StaticDiscovery(parse_endpoints(addresses))))
    for name, _ in given[1:]:
        log.warning("%s is not used: endpoints come from %s", name, given[0][0])
    return given[0][1]() if given else None
