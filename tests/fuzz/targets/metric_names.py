# SPDX-License-Identifier: Apache-2.0
"""Metric names as operators write them, in flags and in configurations.

* `parse_series_spec` gives a specification or raises a `ConfigError` of one line; written out, it is read the same,
  unless a value needs quotes.
* What the flag's check lets through, the specification's parser reads: no mistake is found only after the start.
* The labels of a line are read or refused, never raised on.
"""

from __future__ import annotations

from epp.contract.errors import ConfigError
from epp.service.flags.values import parse_metric
from epp.signals.engine.series import parse_labels, parse_series_spec
from tests.fuzz.harness import Run, Target, one_line


def _make() -> Run:
    def run(data: bytes) -> None:
        parse_labels(data)
        text = data.decode("utf-8", "surrogateescape")
        try:
            spec = parse_series_spec(text)
        except ConfigError as error:
            one_line(error, most=2 * len(text) * 6 + 400)
            spec = None
        try:
            checked = parse_metric(text)
        except ValueError as error:
            one_line(error)
            return
        if not checked:
            return
        assert spec is not None, "the flag takes what cannot be read"
        assert parse_series_spec(checked) == spec
        if all(value.isalnum() for _, value in spec.labels):
            assert parse_series_spec(str(spec)) == spec

    return run


_SEEDS = (
    b"vllm:num_requests_waiting",
    b' name { a = b , c="d\\"e" } ',
    b'x{a=b,c="d"}',
    b"x{}",
    b"",
    b'a="b\\\\",c="\\n"',
)
TARGET = Target(
    "metric_names", _make, lambda: _SEEDS, (b"{", b"}", b'"', b"\\", b"=", b",", b" ", b"\n", b"a=b", b"\xff")
)
