# SPDX-License-Identifier: Apache-2.0
"""Types in words, for messages: what a value should have been, and what is allowed."""

from __future__ import annotations

from typing import Any

from msgspec import inspect


def describe(info: inspect.Type) -> tuple[str, str]:
    """What a value of this type is called ("an integer"), and what is allowed ("an integer >= 0")."""
    extra = info.extra or {} if isinstance(info, inspect.Metadata) else {}
    info = _base(info)
    if "allowed" in extra:
        return kind_of(str(extra["allowed"])), str(extra["allowed"])
    if isinstance(info, inspect.BoolType):
        return "a boolean", "true or false"
    if isinstance(info, inspect.IntType | inspect.FloatType):
        kind = "an integer" if isinstance(info, inspect.IntType) else "a number"
        return kind, kind + _range(info)
    if isinstance(info, inspect.StrType):
        return "a string", "a string" + _shape(info)
    known = choices(info)
    if known:
        return "known", ", ".join(known)
    if isinstance(info, inspect.UnionType):
        parts = [describe(part) for part in info.types if not isinstance(part, inspect.NoneType)]
        return " or ".join(kind for kind, _ in parts), " or ".join(allowed for _, allowed in parts)
    if isinstance(info, inspect.DictType):
        return "a mapping", f"a mapping of names to {describe(info.value_type)[1]}"
    return "allowed here", "another type of value"


def kind_of(allowed: str) -> str:
    """What a value is called, given all that is said about it: "a quantity, not negative" is "a quantity"."""
    return allowed.partition(",")[0].partition(" such as")[0]


def choices(info: inspect.Type) -> list[str]:
    """The values of a Literal or an enumeration; empty for other types."""
    info = _base(info)
    if isinstance(info, inspect.LiteralType):
        return [str(value) for value in info.values]
    if isinstance(info, inspect.EnumType):
        return [str(member.value) for member in info.cls]
    return []


def fits(plain: Any, info: inspect.Type) -> bool:
    """Whether the value is of the right kind, so that only a bound can have been broken."""
    info = _base(info)
    if isinstance(plain, bool):
        return False
    return (
        (isinstance(info, inspect.IntType) and isinstance(plain, int))
        or (isinstance(info, inspect.FloatType) and isinstance(plain, int | float))
        or (isinstance(info, inspect.StrType) and isinstance(plain, str))
    )


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    bounds = [(">=", info.ge), (">", info.gt), ("<=", info.le), ("<", info.lt)]
    parts = [
        f"{sign} {bound:g}" if isinstance(bound, float) else f"{sign} {bound}"
        for sign, bound in bounds
        if bound is not None
    ]
    if info.multiple_of is not None:
        parts.append(f"a multiple of {info.multiple_of}")
    return " " + " and ".join(parts) if parts else ""


def _shape(info: inspect.StrType) -> str:
    parts = []
    if info.min_length:
        parts.append("not empty" if info.min_length == 1 else f"at least {info.min_length} characters")
    if info.max_length is not None:
        parts.append(f"at most {info.max_length} characters")
    if info.pattern is not None:
        parts.append(f"matching {info.pattern}")
    return f" ({', '.join(parts)})" if parts else ""


def _base(info: inspect.Type) -> inspect.Type:
    while isinstance(info, inspect.Metadata):
        info = info.type
    return info
