# SPDX-License-Identifier: Apache-2.0
"""What is expected of every request in every pair of body modes, written down before anything is run.

A column is a response body mode. A cell says the status the client gets, `~` if the answer is cut, and how the handler
is told that it ended: C complete, G gone. `-`: the client did not stay to see. What the request body mode changes is
the pod alone: a request whose body says `"pod": 1` goes to pod 1 where the picker is shown the body before it must
choose, and to pod 0 elsewhere (`read`); one without a body goes to pod 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from epp.extproc import End

SHOWS_BODY = ("BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED")
_TABLE = """\
case         pod   body    NONE   STREAMED  BUFFERED  BUFFERED_PARTIAL  FULL_DUPLEX_STREAMED
get          0     plain   200C   200C      200C      200C              200C
head         0     empty   200C   200C      200C      200C              200C
post         read  plain   200C   200C      200C      200C              200C
five-mb      read  plain   200C   200C      200C      200C              200C
early-401    read  plain   401C   401C      401C      401C              401C
no-content   read  empty   204C   204C      204C      204C              204C
sse          read  events  200C   200C      200C      200C              200C
five-mb-sse  read  big     200C   200C      200C      200C              200C
http2        read  trailed 200C   200C      200C      200C              200C
reset        read  first   200~C  200~G     502G      502G              200~G
gone-up      none  -       -G     -G        -G        -G                -G
gone-down    read  -       -C     -G        -G        -G                -G
"""
# A stream in mode NONE ends after the headers, whatever happens to the body: that counts as complete.

UNWATCHED = ("post", "five-mb", "early-401", "sse", "five-mb-sse", "http2")
"""Cases that are also asked by handlers which do not watch the whole response: same answer, ended as UNWATCHED."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is expected. `status` 0: nobody looked; `pod` "": not asked."""

    case: str
    pod: str
    body: str
    status: int
    cut: bool
    end: End


def cells(request: str, response: str) -> list[Cell]:
    """The cells of one pair of modes."""
    head, *rows = (line.split() for line in _TABLE.splitlines())
    column = head.index(response)
    found = []
    for row in rows:
        case, pod, body, said = row[0], row[1], row[2], row[column]
        if pod == "read":
            pod = "1" if request in SHOWS_BODY else "0"
        elif pod == "none":
            pod = "" if request in SHOWS_BODY else "0"
        status = int(said[:3]) if said[0].isdigit() else 0
        found.append(Cell(case, pod, body, status, "~" in said, {"C": End.COMPLETE, "G": End.GONE}[said[-1]]))
    return found
