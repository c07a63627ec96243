# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a configuration file, said with the names of its listeners and models, what is allowed, and what
was probably meant. The decoder's own messages have places such as `$.listeners[...].models[...].target`.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from epp.config.findings import nearest, remedy, show


def faults(value: object, wanted: Any, path: str = "") -> Iterator[str]:
    """Each thing that keeps `value`, decoded JSON, from being a `wanted`: a type that msgspec reads, of structs,
    mappings, tuples, literals, and scalars."""
    inner = _plain(wanted, value)
    origin = get_origin(inner)
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(value, Mapping):
        yield from _struct(value, inner, path)
    elif origin is dict and isinstance(value, Mapping):
        for key, child in value.items():
            yield from faults(child, get_args(inner)[1], _joined(path, key))
    elif origin is tuple and isinstance(value, list):
        for number, child in enumerate(value):
            yield from faults(child, get_args(inner)[0], f"{path}[{number}]")
    elif origin is Literal and isinstance(value, str):
        if value not in get_args(inner):
            yield f"{path}: {show(value)} is unknown{remedy(value, get_args(inner))}"
    else:
        try:
            msgspec.convert(value, wanted)
        except msgspec.ValidationError as error:
            # The place is ours.
            yield f"{path or 'the document'}: {str(error).partition(' - at ')[0]}"


def _struct(value: Mapping[str, object], wanted: type[msgspec.Struct], path: str) -> Iterator[str]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(wanted)}
    for name, child in value.items():
        if name in fields:
            yield from faults(child, fields[name].type, _joined(path, name))
        else:
            yield f"{path or 'the document'}: unknown field {show(name)}{remedy(name, fields)}"
    unknown = [name for name in value if name not in fields]
    for name, field in fields.items():
        # One that was misspelt is told already.
        if field.required and name not in value and nearest(name, unknown) is None:
            yield f"{path or 'the document'}: {name} is missing"


def _plain(wanted: Any, value: object) -> Any:
    """Without constraints; of `X | None` X, unless the value is none."""
    if get_origin(wanted) is Annotated:
        return _plain(get_args(wanted)[0], value)
    if get_origin(wanted) in (Union, types.UnionType) and value is not None:
        return next(one for one in get_args(wanted) if one is not types.NoneType)
    return wanted


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
