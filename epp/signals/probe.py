# SPDX-License-Identifier: Apache-2.0
"""Asks one endpoint once, and tells everything that can be found out about its metrics page.

The same reader, scanner and filter as in service are used, so that what is told here is what will happen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from epp.contract.endpoints import Endpoint
from epp.contract.plugins import SCRAPED, Reads
from epp.contract.signals import Sample
from epp.signals.engine.scan import PageScanner
from epp.signals.poll.buffers import BufferPool
from epp.signals.poll.filtered import LEAST_BYTES, Filtering
from epp.signals.poll.http1 import PageError
from epp.signals.poll.reader import PageReader, PageSource
from epp.signals.poll.tls import PageTls
from epp.signals.settings import ScrapeSettings


@dataclass(frozen=True, slots=True)
class Probe:
    """What one endpoint answered.

    * url: that was asked; error: why there is no page, or nothing on it, "" when there is something
    * tls: the version spoken, "" for none
    * note: what does no harm and should be known, "" for nothing
    * engine: "" when it is not known; engine_from: label, configuration or page, whose word it is
    * page_bytes: of the whole page; seconds: until it was there, connecting included
    * filter: the form of the query that works, "" for none; filtered_bytes: of the page it gave
    * whole_because: why there is no filter
    * sample: everything the page says
    * missing: fields of `Sample` that are needed and not there, and the series that they were looked for in
    """

    endpoint: Endpoint
    url: str
    error: str = ""
    note: str = ""
    tls: str = ""
    engine: str = ""
    engine_from: str = ""
    page_bytes: int = 0
    seconds: float = 0.0
    filter: str = ""
    filtered_bytes: int = 0
    whole_because: str = ""
    sample: Sample = field(default_factory=Sample)
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the endpoint says all that is needed."""
        return not self.error and not self.missing


async def probe(endpoint: Endpoint, settings: ScrapeSettings, reads: Reads, tls: PageTls | None) -> Probe:
    """Ask `endpoint` for its page, then for the families that `reads` needs alone. Raises nothing of the endpoint's."""
    source = PageSource(endpoint.ip, settings.port or endpoint.port, settings.path, tls)
    asker = _Asker(source, settings)
    note = settings.engines.unknown(endpoint.labels)
    try:
        began_s = time.perf_counter()
        page = await asker.ask(settings.path)
        seconds = time.perf_counter() - began_s
        if isinstance(page, PageError):
            error = str(page).removeprefix(f"{source.url}: ")
            return Probe(endpoint, source.url, error=error, note=note, seconds=seconds)
        everything = PageScanner(settings.engines, SCRAPED, endpoint.labels)
        sample = everything.scan(page)
        needed = PageScanner(settings.engines, reads, endpoint.labels)
        found = needed.scan(page)
        nothing = sample == Sample()
        query, filtered_bytes, why = await _filter(asker, needed, page, settings)
        return Probe(
            endpoint,
            source.url,
            error=everything.nothing_found(page) if nothing else "",
            note=note,
            tls=asker.reader.tls_version,
            engine=everything.engine,
            engine_from=settings.engines.named_by(endpoint.labels) or ("page" if everything.engine else ""),
            page_bytes=len(page),
            seconds=seconds,
            filter=query,
            filtered_bytes=filtered_bytes,
            whole_because=why,
            sample=sample,
            missing={} if nothing else {f: n for f, n in needed.wanted.items() if getattr(found, f) is None},
        )
    finally:
        asker.reader.close()


async def _filter(
    asker: _Asker, scanner: PageScanner, page: bytearray, settings: ScrapeSettings
) -> tuple[str, int, str]:
    """(the form that works, the bytes of its page, why there is none)."""
    if not settings.filtered:
        return "", 0, "switched off"
    if len(page) < LEAST_BYTES:
        return "", 0, "the page is small"
    filtering = Filtering(settings.path, lambda: sorted(scanner.families))
    filtering.learn(page, 0, len(page), 0.0)
    if filtering.path == settings.path:
        return "", 0, "nothing on the page is read"
    while filtering.path != settings.path:
        answer = await asker.ask(filtering.path)
        if isinstance(answer, PageError):
            filtering.failed(answer.reason)
        elif filtering.fits(answer, 0, len(answer)):
            return filtering.path.partition("name%5B%5D=")[0] + "name[]=", len(answer), ""
    return "", 0, "it does not filter"


class _Asker:
    """A page sink whose answers can be awaited."""

    def __init__(self, source: PageSource, settings: ScrapeSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Future[bytearray | PageError] | None = None
        self.reader = PageReader(
            source,
            self,
            loop=self._loop,
            buffers=BufferPool(),
            timeout_s=settings.timeout_s,
            max_bytes=settings.max_page_bytes,
        )

    async def ask(self, path: str) -> bytearray | PageError:
        """The page at `path`, or why there is none."""
        self._told = self._loop.create_future()
        self.reader.use(path)
        self.reader.fetch()
        return await self._told

    def on_page(self, buffer: bytearray, start: int, end: int) -> None:
        """The page is here."""
        self._tell(buffer[start:end])

    def on_page_error(self, error: PageError) -> None:
        """There is none."""
        self._tell(error)

    def on_idle_close(self) -> None:
        """The next question opens another connection."""

    def on_reconnect(self) -> None:
        """The answer will come over another connection."""

    def _tell(self, answer: bytearray | PageError) -> None:
        if self._told is not None and not self._told.done():
            self._told.set_result(answer)
