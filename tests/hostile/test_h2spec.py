# SPDX-License-Identifier: Apache-2.0
"""The conformance suite h2spec (github.com/summerwind/h2spec), all of its sections, against our listener.

    go install github.com/summerwind/h2spec/cmd/h2spec@latest

It is looked for on the PATH, in GOBIN and in ~/go/bin, or where H2SPEC says. What is known to be answered another way
is listed here with the reason; a new failure, and an exception that is none any more, fail the test.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.hostile.server import MIB, attacked, running
from tests.hostile.wire import HOST

REFUSED_AT_ONCE = "it asks without content-type, gets 415 in one header block, and waits for DATA that never comes"
CLOSED = "libnghttp2 ignores frames of a closed stream, which RFC 9113, 5.1 allows for frames in flight; others go on"
OBSOLETE = "RFC 9113, 5.3.2 does away with priorities; libnghttp2 ignores the frame"

EXCEPTIONS = {
    ("generic/2", "Sends a WINDOW_UPDATE frame on half-closed (remote) stream"): REFUSED_AT_ONCE,
    ("generic/2", "Sends a PRIORITY frame on half-closed (remote) stream"): REFUSED_AT_ONCE,
    ("http2/5.1", "closed: Sends a DATA frame after sending RST_STREAM frame"): CLOSED,
    ("http2/5.1", "closed: Sends a HEADERS frame after sending RST_STREAM frame"): CLOSED,
    ("http2/5.1", "closed: Sends a DATA frame"): CLOSED,
    ("http2/5.1", "closed: Sends a HEADERS frame"): CLOSED,
    ("http2/5.1.1", "Sends stream identifier that is numerically smaller than previous"): (
        "the same: the smaller stream is taken for a closed one; nothing is opened"
    ),
    ("http2/5.1.2", "Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded"): (
        "every request ends with its 415, so the streams never add up; test_floods fills them"
    ),
    ("http2/5.3.1", "Sends PRIORITY frame that depend on itself"): OBSOLETE,
    ("http2/6.3", "Sends a PRIORITY frame with 0x0 stream identifier"): OBSOLETE,
    ("http2/6.9.1", "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream"): (
        "libnghttp2 ends the connection with FLOW_CONTROL_ERROR, as RFC 9113, 5.4 allows for any stream error"
    ),
}  # fmt: skip

CLOSED_AT_ONCE = (
    "a peer that says goodbye is closed; its PING still in flight makes that a reset, which h2spec takes for an error"
)

RACES = {
    ("http2/5.1", "half closed (remote): Sends a DATA frame"): REFUSED_AT_ONCE,
    ("http2/5.1", "half closed (remote): Sends a HEADERS frame"): REFUSED_AT_ONCE,
    ("http2/6.1", 'Sends a DATA frame on the stream that is not in "open" or "half-closed (local)" state'): REFUSED_AT_ONCE,
    ("http2/7", "Sends a GOAWAY frame with unknown error code"): CLOSED_AT_ONCE,
}  # fmt: skip
"""Two frames in a row: where they arrive in two reads, the first is answered and its stream, or the connection, is closed
before the second. These may fail."""

CASE = re.compile(r'<testcase package="([^"]*)" classname="([^"]*)"[^>]*>\s*(<failure|<error)?')
"""A case of the report and whether it failed. No XML parser: the peer's bytes are in the report as they came."""


def h2spec() -> str:
    """The binary; skips the test when there is none."""
    named = os.environ.get("H2SPEC")
    places = [os.environ.get("GOBIN", ""), str(Path.home() / "go" / "bin")]
    found = named or shutil.which("h2spec") or shutil.which("h2spec", path=os.pathsep.join(places))
    if not found:
        pytest.skip("needs h2spec: go install github.com/summerwind/h2spec/cmd/h2spec@latest")
    return found


def test_h2spec(tmp_path: Path) -> None:
    binary = h2spec()
    report = tmp_path / "report.xml"
    with running() as server, attacked(server, 24 * MIB):
        command = [binary, "-h", HOST, "-p", str(server.port), "-o", "1", "-j", str(report)]
        subprocess.run(command, capture_output=True, timeout=100, check=False)
    cases = [
        ((package, html.unescape(name)), bool(failed))
        for package, name, failed in CASE.findall(report.read_text(errors="replace"))
    ]
    failed = {name for name, failed in cases if failed}
    assert len(cases) > 130
    assert failed - set(RACES) == set(EXCEPTIONS)
