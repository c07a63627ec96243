# SPDX-License-Identifier: Apache-2.0
"""Properties over the whole table: every form of a flag says the same, nonsense gets one line, fields keep their types."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.contract.errors import UsageError
from epp.service.flags.kinds import LISTS
from epp.service.flags.options import Options
from epp.service.flags.parsing import HelpRequested, parse, usage
from epp.service.flags.table import FLAGS, VARIABLES, Flag

SAMPLES: dict[str, list[str]] = {
    "bool": ["true", "false", "1", "0", "T", "F", "True", "FALSE"],
    "fraction": ["0.5", "1"],
    "int": ["0", "1", "0x10", "9444"],
    "duration": ["1s", "50ms", "0m30s", "0.01h"],
    "size": ["65536", "10MiB", "25MB", "64Mi"],
    "string": ["a", "", "a=b", "-", "two words", "--unlike-a-flag"],
    "path": ["/a", "", "b/c", "a=b"],
    "header": ["x-a", "X-B"],
    "url-path": ["/", "/metrics", "/a?b=c"],
    "metric": ["", "a:b", "m{a=b}"],
    "selector": [""],
    "level": ["debug", "info", "error", "3"],
    "bind-ip": ["", "::1", "127.0.0.1"],
    "choices": ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_AES_128_GCM_SHA256"],
    "ints": ["80", "80,81", ""],
    "paths": ["/a", "/a,b"],
    "addresses": ["10.0.0.1:80", "10.0.0.1:80,[::1]:90"],
    "names": ["pool", "*", "a,b"],
    "ports": ["9010", "9010-9050"],
}
TOGETHER = {"metrics-client-ca-file": ["--metrics-cert-dir=/certs"]}


def sample(flag: Flag) -> st.SearchStrategy[str]:
    return st.sampled_from([c for c in flag.choices if c] if flag.kind == "choice" else SAMPLES[flag.kind])


def outcome(argv: list[str]) -> Options | str:
    """The options, or what is wrong with flags that exclude each other."""
    try:
        return parse(argv, {})
    except UsageError as error:
        return str(error)


def without_warnings(options: Options | str) -> Options | str:
    return options if isinstance(options, str) else dataclasses.replace(options, warnings=())


@st.composite
def same_thing_twice(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """A plain command line, and one that says the same in other forms."""
    chosen = draw(st.lists(st.sampled_from(FLAGS), unique_by=lambda flag: flag.name, max_size=8))
    plain: list[str] = []
    other: list[str] = []
    for flag in chosen:
        text = draw(sample(flag))
        plain.append(f"--{flag.name}={text}")
        dashes, spelling = draw(st.sampled_from(["-", "--"])), draw(st.sampled_from(flag.spellings))
        if flag.kind == "bool" and text.lower() in ("true", "1", "t") and draw(st.booleans()):
            other.append(dashes + spelling)
        elif flag.kind == "bool" or draw(st.booleans()):
            other.append(f"{dashes}{spelling}={text}")
        else:
            other += [dashes + spelling, text]
        other += draw(st.lists(st.just(""), max_size=2))
    return plain, other


@given(same_thing_twice())
def test_every_form_says_the_same(lines: tuple[list[str], list[str]]) -> None:
    plain, other = lines
    assert outcome(plain) == outcome(other)


@given(st.lists(st.sampled_from([f for f in FLAGS if f.kind not in LISTS]), max_size=3).flatmap(
    lambda flags: st.tuples(*(st.tuples(st.just(f), sample(f), sample(f)) for f in flags))
))  # fmt: skip
def test_the_last_value_holds(rows: tuple[tuple[Flag, str, str], ...]) -> None:
    first = [f"--{flag.name}={text}" for flag, text, _ in rows]
    last = [f"-{flag.spellings[-1]}={text}" for flag, _, text in rows]
    assert without_warnings(outcome([*first, *last])) == without_warnings(outcome(last))


@given(st.lists(st.text(max_size=20), max_size=6), st.dictionaries(
    st.sampled_from([f.env for f in FLAGS if f.env] + [v.name for v in VARIABLES]), st.text(max_size=10)
))  # fmt: skip
def test_nonsense_gets_one_line(argv: list[str], environ: dict[str, str]) -> None:
    said = [""]
    try:
        said += parse(argv, environ).warnings
    except HelpRequested:
        said.append(usage().splitlines()[0])
    except UsageError as error:
        said.append(str(error))
    assert all(line.isprintable() for line in said)


def fits(value: object, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin is types.UnionType:
        return any(fits(value, arm) for arm in typing.get_args(hint))
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(item, typing.get_args(hint)[0]) for item in value)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_fields_have_their_types(flag: Flag) -> None:
    hints = typing.get_type_hints(Options)
    for text in [c for c in flag.choices if c] if flag.kind == "choice" else SAMPLES[flag.kind]:
        options = parse([f"--{flag.name}={text}", *TOGETHER.get(flag.name, [])], {})
        for field in dataclasses.fields(Options):
            assert fits(getattr(options, field.name), hints[field.name]), field.name
