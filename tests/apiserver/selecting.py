# SPDX-License-Identifier: Apache-2.0
"""Label and field selectors as the server reads them.

Written apart from the product's own selectors, so that each can check the other. Grammar: requirements joined by
commas; `key`, `!key`, `key=v`, `key==v`, `key!=v`, `key in (a,b)`, `key notin (a,b)`, `key>1`, `key<1`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.apiserver.kinds import PODS, Kind
from tests.apiserver.status import bad_request

Labels = Mapping[str, str]
Test = Callable[[Labels], bool]

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_TOKEN = re.compile(r"\s*(==|!=|=|!|<|>|\(|\)|,|[^\s=!<>(),]+)\s*")

POD_FIELDS = {
    "spec.nodeName": ("spec", "nodeName"),
    "spec.restartPolicy": ("spec", "restartPolicy"),
    "spec.schedulerName": ("spec", "schedulerName"),
    "spec.serviceAccountName": ("spec", "serviceAccountName"),
    "status.phase": ("status", "phase"),
    "status.podIP": ("status", "podIP"),
    "status.nominatedNodeName": ("status", "nominatedNodeName"),
}


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            break
        tokens.append(found[1])
        at = found.end()
    return tokens


def _key(token: str, text: str) -> str:
    prefix, slash, name = token.rpartition("/")
    good = _NAME.match(name) is not None and (not slash or (len(prefix) <= 253 and _PREFIX.match(prefix) is not None))
    if not good:
        raise bad_request(
            f"unable to parse requirement: <nil>: Invalid value: {token!r}: name part must consist of alphanumeric "
            f"characters, '-', '_' or '.', and must start and end with an alphanumeric character (in {text!r})"
        )
    return token


def _value(token: str, text: str) -> str:
    if token and _NAME.match(token) is None:
        raise bad_request(f"unable to parse requirement: values[0][{token}]: Invalid value: {token!r} (in {text!r})")
    return token


class _Reader:
    """Reads the requirements of one selector."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.left = _tokens(text)

    def next(self) -> str:
        return self.left.pop(0) if self.left else ""

    def peek(self) -> str:
        return self.left[0] if self.left else ""

    def fail(self, found: str, expected: str) -> Exception:
        return bad_request(f"unable to parse requirement: found '{found}', expected: {expected}")

    def values(self) -> frozenset[str]:
        if (found := self.next()) != "(":
            raise self.fail(found, "'('")
        values, fresh = set(), True
        while (token := self.next()) != ")":
            if token == ",":
                if fresh:
                    values.add("")
                fresh = True
            elif fresh and token not in ("", "(", "=", "==", "!=", "!", "<", ">"):
                values.add(_value(token, self.text))
                fresh = False
            else:
                raise self.fail(token, "',' or ')'")
        if fresh:
            values.add("")
        return frozenset(values)

    def one_value(self) -> str:
        return "" if self.peek() in ("", ",") else _value(self.next(), self.text)

    def requirement(self) -> Test:
        if self.peek() == "!":
            self.next()
            absent = _key(self.next(), self.text)
            return lambda labels: absent not in labels
        key = _key(self.next(), self.text)
        sign = self.peek()
        if sign in ("", ","):
            return lambda labels: key in labels
        self.next()
        if sign in ("in", "notin"):
            values = self.values()
            wanted = sign == "in"
            return lambda labels: (key in labels and labels[key] in values) if wanted else labels.get(key) not in values
        if sign in ("=", "==", "!="):
            value = self.one_value()
            return (
                (lambda labels: labels.get(key) != value) if sign == "!=" else lambda labels: labels.get(key) == value
            )
        if sign in ("<", ">"):
            return _number(key, sign, self.next(), self.text)
        raise self.fail(sign, "in, notin, =, ==, !=, gt, lt")


def _number(key: str, sign: str, token: str, text: str) -> Test:
    if not re.fullmatch(r"-?\d+", token):
        raise bad_request(
            f"unable to parse requirement: for 'Gt', 'Lt' operators, the value must be an integer (in {text!r})"
        )
    bound = int(token)

    def test(labels: Labels) -> bool:
        value = labels.get(key, "")
        if not re.fullmatch(r"-?\d+", value):
            return False
        return int(value) > bound if sign == ">" else int(value) < bound

    return test


def label_test(text: str) -> Test:
    """Whether labels fit the selector; Refused (400) when it cannot be read."""
    reader, tests = _Reader(text), []
    while reader.left:
        tests.append(reader.requirement())
        if not reader.left:
            break
        if (token := reader.next()) != ",":
            raise reader.fail(token, "',' or 'end of string'")
        if not reader.left:
            raise reader.fail("", "identifier after ','")
    return lambda labels: all(test(labels) for test in tests)


def field_test(kind: Kind, text: str) -> Test | None:
    """Whether an object's fields fit the selector; None without one; Refused (400) for a field that cannot be chosen."""
    if not text:
        return None
    wanted: list[tuple[str, str, bool]] = []
    for term in text.split(","):
        field, sign, value = next((term.partition(sign) for sign in ("!=", "==", "=") if sign in term), (term, "", ""))
        if not sign:
            raise bad_request(f'invalid selector: "{text}"; can\'t understand "{term}"')
        if field not in ("metadata.name", "metadata.namespace") and not (kind is PODS and field in POD_FIELDS):
            raise bad_request(
                f'Unable to find "{kind.group}/{kind.version}, Resource={kind.plural}" that match label selector "", '
                f'field selector "{text}": field label not supported: {field}'
            )
        wanted.append((field, value, sign != "!="))
    return lambda fields: all((fields.get(field, "") == value) is same for field, value, same in wanted)


def fields_of(kind: Kind, body: Mapping[str, Any]) -> dict[str, str]:
    """The fields that can be chosen by, of an object that may be malformed."""
    meta = body.get("metadata", {})
    fields = {"metadata.name": str(meta.get("name", "")), "metadata.namespace": str(meta.get("namespace", ""))}
    if kind is PODS:
        for field, (part, name) in POD_FIELDS.items():
            section = body.get(part)
            value = section.get(name) if isinstance(section, dict) else None
            fields[field] = value if isinstance(value, str) else ""
    return fields


def labels_of(body: Mapping[str, Any]) -> dict[str, str]:
    """The labels, of an object that may be malformed."""
    labels = body.get("metadata", {}).get("labels")
    if not isinstance(labels, dict):
        return {}
    return {key: value for key, value in labels.items() if isinstance(value, str)}
