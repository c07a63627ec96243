# SPDX-License-Identifier: Apache-2.0
"""What does not work at the moment although the process does, and what would mend it.

A matter is named by a short stable text (`pods`, `inferencepools`, `metrics-auth`); its line is for the person who can
act. Each change is logged once, and the metric `epp_degraded{what}` is 1 as long as it lasts, 0 once it is mended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from epp.observe.metrics.families import Family, Name
from epp.observe.metrics.rows import FamilyCollector, Row

log = logging.getLogger("epp.service")

Tell = Callable[[str, str | None], None]
"""`tell(what, line)`: this is wrong; `tell(what, None)`: it is well again."""

_DEGRADED = Family(
    "gauge",
    "What does not work at the moment; the log and /readyz have the remedy.",
    (Name("epp_degraded", ("what",)),),
)


class Degraded(FamilyCollector):
    """Every matter that was ever wrong. `tell` may be called as often as one likes: what has not changed is silent."""

    def __init__(self) -> None:
        self._lines: dict[str, str | None] = {}

    def tell(self, what: str, line: str | None) -> None:
        """`what` is wrong, as `line` says, or well again (None)."""
        before = self._lines.get(what)
        if line == before:
            return
        self._lines[what] = line
        if line is None:
            log.info("%s: well again", what)
        else:
            log.warning("%s: %s", what, line)

    def about(self, prefix: str) -> Tell:
        """A `tell` whose matters begin with `prefix/`."""
        return lambda what, line: self.tell(f"{prefix}/{what}", line)

    def forget(self, prefix: str) -> None:
        """What begins with `prefix` is nobody's matter any more."""
        for what in [what for what in self._lines if what.startswith(prefix)]:
            del self._lines[what]

    def lines(self) -> list[str]:
        """What is wrong now, one line each."""
        return [f"{what}: {line}" for what, line in self._lines.copy().items() if line is not None]

    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        """One row for each matter that was ever wrong."""
        yield _DEGRADED, [({"what": what}, float(line is not None)) for what, line in self._lines.copy().items()]
