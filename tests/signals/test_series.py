# SPDX-License-Identifier: Apache-2.0
"""The grammar in which series are named, and the labels of a series."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epp.contract.errors import ConfigError
from epp.signals.engine.series import SeriesSpec, parse_labels, parse_series_spec


@pytest.mark.parametrize(
    ("text", "name", "labels"),
    [
        ("vllm:num_requests_waiting", "vllm:num_requests_waiting", ()),
        ("  m  ", "m", ()),
        ("m{}", "m", ()),
        ("m{a=b}", "m", (("a", "b"),)),
        (
            "nv_trt_llm_request_metrics{request_type=waiting}",
            "nv_trt_llm_request_metrics",
            (("request_type", "waiting"),),
        ),
        ('m{a=b,c="d e"}', "m", (("a", "b"), ("c", "d e"))),
        ('m { a = "b" , c = d , }', "m", (("a", "b"), ("c", "d"))),
        (r'm{a="x\"y\\z\n"}', "m", (("a", 'x"y\\z\n'),)),
        ('m{a=""}', "m", (("a", ""),)),
    ],
)
def test_specifications_are_read(text: str, name: str, labels: tuple[tuple[str, str], ...]) -> None:
    assert parse_series_spec(text) == SeriesSpec(name, labels)


@pytest.mark.parametrize("text", ["", " ", "1m", "m{", "m}", "m{a}", "m{a=}", "m{a=b c=d}", 'm{a="b}', "m m", "m{=b}"])
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="write name or name") as caught:
        parse_series_spec(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "labels"),
    [
        (b"", {}),
        (b"  ", {}),
        (b'a="b"', {"a": "b"}),
        (b'a="b",', {"a": "b"}),
        (b' a = "b" , c="d" ', {"a": "b", "c": "d"}),
        (b'a="}{,= # "', {"a": "}{,= # "}),
        (rb'a="\"\\\n\x"', {"a": '"\\\nx'}),
        ('a="é"'.encode(), {"a": "é"}),
        (b'a="\xff"', {"a": "�"}),
        (b"a=b", None),
        (b'a="b', None),
        (b'a="b" c="d"', None),
        (b"nonsense", None),
    ],
)
def test_labels_are_read(raw: bytes, labels: dict[str, str] | None) -> None:
    assert parse_labels(raw) == labels


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True), st.text(max_size=8), max_size=4))
def test_what_is_written_as_labels_is_read_back(labels: dict[str, str]) -> None:
    def escape(value: str) -> str:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

    text = ",".join(f'{key}="{escape(value)}"' for key, value in labels.items())
    assert parse_labels(text.encode()) == labels
    assert parse_series_spec(f"m{{{text}}}") == SeriesSpec("m", tuple(labels.items()))
    assert SeriesSpec("m", tuple(labels.items())).matches({**labels, "more": "x"})


def test_a_spec_matches_series_that_have_its_labels() -> None:
    spec = SeriesSpec("m", (("type", "waiting"),))
    assert spec.matches({"type": "waiting", "model": "x"})
    assert not spec.matches({"type": "running"})
    assert not spec.matches({})
    assert str(spec) == "m{type=waiting}"
