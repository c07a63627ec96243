# SPDX-License-Identifier: Apache-2.0
"""Sources of endpoints that do not behave: the service starts, stops and goes on as it should all the same."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.stack import ROOT, Part, serving

CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: odd-discovery
- type: random-picker
dataLayer:
  discovery:
    pluginRef: odd-discovery
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: random-picker
"""
PLUGIN = """\
import asyncio

from epp.api import Kind, plugin
from epp.contract.discovery import EndpointSpec


@plugin("odd-discovery", Kind.DISCOVERY)
class Odd:
    \"\"\"A source that behaves as the test asks.\"\"\"

    async def run(self, publish):
        {body}
"""
ONE = 'publish([EndpointSpec("default", "one", "127.0.0.1", 9)])'


def flags(folder: Path, body: str) -> list[str]:
    (folder / "odd.py").write_text(PLUGIN.format(body=body))
    return [f"--plugin-dir={folder}", "--config-text", CONFIG]


def test_a_source_that_keeps_us_waiting_can_be_given_up(tmp_path: Path) -> None:
    body = "print('asked', flush=True); await asyncio.Event().wait()"
    with serving(*flags(tmp_path, body), wait=False) as part:
        part.wait(lambda line: line == "asked")
        part.signal(signal.SIGTERM)
        assert part.ended(8) == 0
    assert "stopped before anything listened" in part.lines[-1]
    assert not any("Traceback" in line for line in part.lines)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return None", "the source of endpoints ended without telling any"),
        ("raise __import__('epp.api').api.DiscoveryError('nobody there')", "nobody there"),
    ],
    ids=["ends", "fails"],
)
def test_a_source_that_never_tells(body: str, text: str, tmp_path: Path) -> None:
    local = ["--bind-address=127.0.0.1", "--grpc-port=0", "--grpc-health-port=0", "--metrics-port=0"]
    argv = [sys.executable, "-m", "epp", "serve", *local, *flags(tmp_path, body)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    [error] = [r["msg"] for r in map(json.loads, done.stderr.splitlines()) if r["level"] == "error"]
    assert text in error


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (ONE, "the source of endpoints ended; its last endpoints are kept"),
        (f"{ONE}; await asyncio.sleep(0.05); raise OSError('gone')", "the source of endpoints failed: OSError('gone')"),
    ],
    ids=["ends", "fails"],
)
def test_a_source_that_gives_up_later(body: str, text: str, tmp_path: Path) -> None:
    with serving(*flags(tmp_path, body)) as epp:
        assert epp.say(text)["level"] == "error"
        epp.say("endpoints found: 1")
        assert epp.process.poll() is None
        assert len(epp.complaints()) == 1
        epp.signal(signal.SIGINT)
        assert epp.ended(8) == 0


def test_the_harness_notices_an_end() -> None:
    part = Part([sys.executable, "-c", "print('bye')"])
    with pytest.raises(AssertionError, match="ended with 0"):
        part.wait(lambda line: line == "never")
    part.stop()
