# SPDX-License-Identifier: Apache-2.0
"""`file-discovery`: endpoints from a file, named in the configuration instead of on the command line."""

from __future__ import annotations

from dataclasses import dataclass

from epp.api import ConfigError, Kind, PluginContext, plugin
from epp.contract.discovery import Publish
from epp.discovery.file import FileDiscovery


@plugin("file-discovery", Kind.DISCOVERY)
class FileDiscoveryPlugin:
    """Reads endpoints from a file; with `watchFile`, follows its changes.

    Formula: none; the file lists name, namespace, address, port and labels.
    Range: up to 1 MiB, YAML or JSON.
    Reads: the file.
    Cost: one read a second, in a thread, when it is watched.
    Without data: a file that cannot be read ends the start; later the last good state is kept.
    Origin: `file-discovery` of llm-d's router, which refuses to start when one entry is bad and knows IPv4 alone.
    """

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """* path: the file; required
        * watchFile: follow changes
        """

        path: str
        watchFile: bool = False

    def __init__(self, parameters: Parameters, context: PluginContext) -> None:
        if not parameters.path:
            raise ConfigError(f"plugin {context.name}: path is empty; give the endpoints file")
        self._source = FileDiscovery(parameters.path, watch=parameters.watchFile)

    async def run(self, publish: Publish) -> None:
        """Publish what the file lists, then every change. Raises `DiscoveryError` when it is no use at the start."""
        await self._source.run(publish)
