# SPDX-License-Identifier: Apache-2.0
"""The schema of an endpoints file, in YAML and JSON, with every mistake that can be made in it."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from epp.contract.errors import DiscoveryError
from epp.discovery.document import MAX_DEPTH
from epp.discovery.entries import Entries, parse_entries

GO_SAMPLE = """\
# comment
endpoints:
- name: vllm-0
  namespace: prod
  address: 10.0.0.1
  port: "8000"
  labels:
    app: vllm
    llm-d.ai/role: decode
- name: vllm-1
  address: 10.0.0.2
  port: 8001
"""


def found(content: str | bytes) -> list[tuple[str, str, dict[str, str]]]:
    entries = parse_entries(content.encode() if isinstance(content, str) else content)
    assert entries.problems == ()
    return [(spec.id, spec.address, dict(spec.labels)) for spec in entries.specs]


EXPECTED = [
    ("prod/vllm-0", "10.0.0.1:8000", {"app": "vllm", "llm-d.ai/role": "decode"}),
    ("default/vllm-1", "10.0.0.2:8001", {}),
]


def test_yaml_and_json() -> None:
    assert found(GO_SAMPLE) == EXPECTED
    document = yaml.safe_load(GO_SAMPLE)
    for text in (json.dumps(document), json.dumps(document, indent="\t"), "\ufeff" + GO_SAMPLE):
        assert found(text) == EXPECTED
    assert found("{endpoints: [{name: a, address: 1.2.3.4, port: 1}]}") == [("default/a", "1.2.3.4:1", {})]


def test_what_go_would_refuse_and_we_accept() -> None:
    text = """
endpoints:
- {name: a, address: "2001:DB8::1", port: 80, labels: null, namespace: null}
- {name: b, address: 1:2:3:4:5:6:7:8, port: "80"}
- {name: c, address: fd00::1, port: "080", labels: &l {x: "1"}}
- {name: d, address: fd00::2, port: 80, labels: *l}
"""
    assert found(text) == [
        ("default/a", "[2001:db8::1]:80", {}),
        ("default/b", "[1:2:3:4:5:6:7:8]:80", {}),
        ("default/c", "[fd00::1]:80", {"x": "1"}),
        ("default/d", "[fd00::2]:80", {"x": "1"}),
    ]


def test_an_empty_list_is_a_list() -> None:
    assert found("endpoints: []") == []
    assert found('{"endpoints": []}') == []


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: a, adress: 1.2.3.4, port: 1}", "unknown field 'adress'; did you mean 'address'?"),
        ("{name: a, address: 1.2.3.4, port: 1, Name: b}", "unknown field 'Name'; did you mean 'name'?"),
        ("{name: a, address: 1.2.3.4, port: 1, weight: 3}", "known are name, namespace, address, port, labels"),
        ("{name: a}", "address, port must be given"),
        ("{name: null, address: 1.2.3.4, port: 1}", "name must be given"),
        ("{name: a, name: b, address: 1.2.3.4, port: 1}", "'name' is there twice"),
        ("{name: 5, address: 1.2.3.4, port: 1}", "name is 5, which is not text; quote it"),
        ("{name: yes, address: 1.2.3.4, port: 1}", "name is yes, which is not text"),
        ("{name: '', address: 1.2.3.4, port: 1}", "1 to 253 characters"),
        ("{name: a/b, address: 1.2.3.4, port: 1}", "without blanks and slashes"),
        ("{name: a, namespace: 'a b', address: 1.2.3.4, port: 1}", "namespace 'a b' must be"),
        ("{name: [a], address: 1.2.3.4, port: 1}", "name is a list; it must be text"),
        ("{name: a, address: pod.example.com, port: 1}", "host names are not looked up"),
        ("{name: a, address: '[::1]', port: 1}", "leave the brackets out"),
        ("{name: a, address: 1.2.3.4, port: 0}", "port '0' must be a number from 1 to 65535"),
        ("{name: a, address: 1.2.3.4, port: 99999}", "port '99999'"),
        ("{name: a, address: 1.2.3.4, port: 0x50}", "port '0x50'"),
        ("{name: a, address: 1.2.3.4, port: http}", "port 'http'"),
        ("{name: a, address: 1.2.3.4, port: [1]}", "port is a list"),
        ("{name: a, address: 1.2.3.4, port: 1, labels: x}", "labels is text; it must be a mapping"),
        ("{name: a, address: 1.2.3.4, port: 1, labels: {a: 1}}", "label 'a' is 1, which is not text; quote it"),
        ("{name: a, address: 1.2.3.4, port: 1, labels: {a: {}}}", "label 'a' is a mapping"),
        ("{name: a, address: 1.2.3.4, port: 1, labels: {a: x, a: y}}", "label 'a' is there twice"),
        ("text", "the entry is text; it must have name, address and port"),
        ("", "the entry is nothing"),
        ("{<<: {a: b}, name: a, address: 1.2.3.4, port: 1}", "unknown field '<<'"),
        ("{[a]: b}", "unknown field"),
        ("{name: good, address: 1.2.3.9, port: 1}", "default/good is already at line 2"),
    ],
)
def test_a_bad_entry_is_named_with_its_line_and_the_others_are_used(entry: str, message: str) -> None:
    text = f"endpoints:\n- {{name: good, address: 1.2.3.4, port: 1}}\n- {entry}\n- {{name: z, address: 1.2.3.5, port: 1}}\n"
    entries = parse_entries(text.encode())
    assert [spec.name for spec in entries.specs] == ["good", "z"]
    (problem,) = entries.problems
    assert problem.startswith("line 3: ")
    assert message in problem
    assert "\n" not in problem


def test_a_bad_entry_in_json_is_named_by_its_place() -> None:
    entries = parse_entries(b'{"endpoints": [{"name": "a", "address": "1.2.3.4", "port": 1}, {"name": "a"}]}')
    assert entries.problems == ("endpoints[1]: address, port must be given",)
    twice = parse_entries(b'{"endpoints": [{"name": "a", "name": "b", "address": "1.2.3.4", "port": 1}]}')
    assert twice.problems == ("endpoints[0]: field 'name' is there twice",)


def test_one_address_under_two_names_is_used_and_remarked_on() -> None:
    entries = parse_entries(
        b"endpoints:\n- {name: a, address: fd00::1, port: 1}\n- {name: b, address: fd00:0::1, port: 1}\n- {name: c, address: fd00::1, port: 2}"
    )
    assert [spec.name for spec in entries.specs] == ["a", "b", "c"]
    assert entries.remarks == ("line 3: default/b has the address of default/a, [fd00::1]:1",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it holds nothing"),
        (b"# only a comment\n", "it holds nothing"),
        (b"endpoints:\n", "line 1: 'endpoints' is nothing; it must be a list, [] when there are none"),
        (b"endpoints: {}\n", "'endpoints' is a mapping"),
        (b"[]", "it holds a list"),
        (b"- a\n", "it holds a list"),
        (b"{}", "'endpoints' is missing"),
        (b"endpoint: []\n", "line 1: unknown field 'endpoint'; did you mean 'endpoints'?"),
        (b"endpoints: []\nversion: 1\n", "line 2: unknown field 'version'"),
        (b"endpoints: []\nendpoints: []\n", "line 2: 'endpoints' is there twice"),
        (b"endpoints: []\n---\nendpoints: []\n", "line 2: a second document begins"),
        (b"endpoints:\n- name: a\n   address: b\n", "line 3: mapping values are not allowed"),
        (b"endpoints:\n- name: 'a\n", "line "),
        (b'{"endpoints": [\n{"name": "a" "address"', "line 2: Expecting ',' delimiter"),
        (b'{"endpoints": [' + b"9" * 5000 + b"]}", ""),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b"endpoints: [\x00]", "character"),
        (b"endpoints: &a [*a]", "line 1: *a stands for nothing"),
        (b"endpoints: [*missing]", "*missing"),
        (b"[" * 1_000_000, f"nested more than {MAX_DEPTH} deep"),
        (b'{"endpoints": ' * 10_000, "deep"),
        (b'{"endpoints": ' + b"[" * 100 + b"]" * 100 + b"}", "deep"),
        (b"- " * 500_000, "deep"),
        (b"? " * 500_000, "deep"),
    ],
)
def test_a_file_that_is_no_use_is_refused_in_one_line(content: bytes, message: str) -> None:
    if not message:
        assert len(parse_entries(content).problems) == 1
        return
    with pytest.raises(DiscoveryError) as caught:
        parse_entries(content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aliases_do_not_multiply() -> None:
    labels = "".join(f"k{number}: v, " for number in range(200))
    text = f"endpoints:\n- &e {{name: a, address: fd00::1, port: 1, labels: {{{labels}}}}}\n" + "- *e\n" * 1000
    assert len(parse_entries(text.encode()).problems) == 1000


FIELDS = st.sampled_from(["name", "namespace", "address", "port", "labels", "endpoints", "x", "<<"])
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(["::1", "80", "a"])
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner, max_size=5), max_leaves=12
)


def check(content: bytes) -> Entries | None:
    try:
        entries = parse_entries(content)
    except DiscoveryError as error:
        assert "\n" not in str(error)
        return None
    assert len({spec.id for spec in entries.specs}) == len(entries.specs)
    assert all(1 <= spec.port <= 65535 and spec.name for spec in entries.specs)
    assert all("\n" not in line for line in entries.problems)
    return entries


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.fixed_dictionaries({"endpoints": st.lists(TREES, max_size=4)}) | TREES)
def test_any_document_is_entries_or_one_line(tree: object) -> None:
    as_json = check(json.dumps(tree).encode())
    as_yaml = check(yaml.safe_dump(tree).encode())
    if as_json and as_yaml:
        assert as_json.specs == as_yaml.specs


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200) | st.text("endpoits: \n-{}[]*&!'\"|>%@a1\t#,?", max_size=80).map(str.encode))
@example(b"endpoints: !!python/object/apply:os.system [x]")
@example(b"!!binary x")
def test_any_bytes_are_entries_or_one_line(content: bytes) -> None:
    check(content)


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "x" * 5000},
        {"name": "a", "address": "y" * 5000},
        {"name": "a", "address": "fe80::1%" + "z" * 5000},
        {"name": "a", "address": "10.0.0.1", "port": "9" * 4000},
        {"name": "a", "k" * 5000: 1},
        {"name": "a", "address": "10.0.0.1", "port": 1, "labels": {"k" * 5000: 1}},
    ],
)
def test_a_problem_shows_the_beginning_of_a_long_value(entry: dict[str, object]) -> None:
    (problem,) = parse_entries(
        json.dumps({"endpoints": [{"address": "10.0.0.1", "port": 1, **entry}]}).encode()
    ).problems
    assert len(problem) < 400


@pytest.mark.parametrize("text", ['{"endpoints": [{"name": "\\ud800"}]}', '{"endpoints": [], "\\udc00": 1}'])
def test_half_of_a_surrogate_pair_is_refused(text: str) -> None:
    with pytest.raises(DiscoveryError, match=r"surrogate|Unicode"):
        parse_entries(text.encode())


def test_a_scalar_with_a_line_break_is_shown_in_one_line() -> None:
    (problem,) = parse_entries(b'endpoints: [{name: !!int "1\\n2", address: 10.0.0.1, port: 1}]').problems
    assert "\n" not in problem
