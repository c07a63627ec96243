# SPDX-License-Identifier: Apache-2.0
"""All targets, by name."""

from __future__ import annotations

import importlib

from tests.fuzz.harness import Target

NAMES = (
    "wire",
    "headers",
    "exchange",
    "bodies",
    "encoding",
    "usage",
    "askusage",
    "hideusage",
    "page",
    "http1",
    "metric_names",
    "endpoints_file",
    "configuration",
    "flags",
    "frames",
    "h2",
    "access_log",
    "picker",
)


def load(name: str) -> Target:
    """The target called `name`."""
    target: Target = importlib.import_module(f"tests.fuzz.targets.{name}").TARGET
    assert target.name == name
    return target
