# SPDX-License-Identifier: Apache-2.0
"""get and list: one object, or a page of a consistent list.

Items of built-in kinds come without apiVersion and kind in a list, those of custom resources with them, as from the
real server. A continue token names the version of its list: pages are of one moment, and when that moment is
forgotten the answer is 410 with a token to go on inconsistently.
"""

from __future__ import annotations

import base64
import binascii

import orjson

from tests.apiserver.kinds import Kind
from tests.apiserver.request import Request
from tests.apiserver.selecting import field_test, label_test
from tests.apiserver.status import CONTINUE_TOO_OLD, Refused, bad_request, not_found, refuse, status, too_large, too_old
from tests.apiserver.store import Item, Key, Store, key_of

INCONSISTENT = -1
"""In a continue token: go on with what is there now."""


def get(store: Store, kind: Kind, request: Request) -> bytes:
    """One object; Refused (404) when it is not there."""
    item = store.get(kind, key_of(kind, request.namespace, request.name))
    if item is None:
        raise not_found(kind, request.name)
    return item.data


def resource_version(text: str) -> int:
    """A resource version of a query, 0 when it is not given; Refused (400) when it is no number."""
    if text and not text.isdigit():
        raise bad_request(f'invalid resource version "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text or 0)


def number(name: str, text: str) -> int:
    """A whole number of a query, 0 when it is not given; Refused (400) when it is none."""
    try:
        return int(text or 0)
    except ValueError:
        raise bad_request(f'{name}: strconv.ParseInt: parsing "{text}": invalid syntax') from None


class Chosen:
    """Which items a request means: its namespace and selectors."""

    def __init__(self, kind: Kind, request: Request) -> None:
        self.prefix = f"{request.namespace}/" if kind.namespaced and request.namespace else ""
        self.selective = False
        self._labels = self._fields = None
        if text := request.query.get("labelSelector", ""):
            self._labels, self.selective = label_test(text), True
        if text := request.query.get("fieldSelector", ""):
            self._fields, self.selective = field_test(kind, text), True

    def __call__(self, key: Key, item: Item | None) -> bool:
        return (
            item is not None
            and key.startswith(self.prefix)
            and (self._labels is None or self._labels(item.labels))
            and (self._fields is None or self._fields(item.fields))
        )


def _token(version: int, start: Key) -> str:
    body = {"v": "meta.k8s.io/v1", "rv": version, "start": start + "\0"}
    return base64.urlsafe_b64encode(orjson.dumps(body)).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, Key]:
    try:
        body = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(body["rv"]), str(body["start"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise bad_request(f"continue key is not valid: {token!r}") from None


def _moment(store: Store, kind: Kind, request: Request) -> tuple[dict[Key, Item], int, Key]:
    """The state the list is of, its version, and the key from which on it is told."""
    asked = resource_version(request.query.get("resourceVersion", ""))
    items, current = store.state(kind)
    if token := request.query.get("continue"):
        if asked:
            raise bad_request("specifying resource version is not allowed when using continue")
        version, start = _read_token(token)
        if version == INCONSISTENT:
            return items, current, start
        past = store.at(kind, version)
        if past is None:
            fresh = _token(INCONSISTENT, start.rstrip("\0"))
            raise refuse(410, "Expired", CONTINUE_TOO_OLD, None, **{"continue": fresh})
        return past, version, start
    if asked > current:
        raise too_large(asked, current)
    if asked and request.query.get("resourceVersionMatch") == "Exact":
        past = store.at(kind, asked)
        if past is None:
            raise Refused(410, orjson.dumps(too_old(asked, store.oldest(kind))))
        return past, asked, ""
    return items, current, ""


def list_(store: Store, kind: Kind, request: Request) -> bytes:
    """A list, or a page of one. With resourceVersion=0 the limit is ignored, as by the real server's cache."""
    chosen = Chosen(kind, request)
    state, version, start = _moment(store, kind, request)
    limit = number("limit", request.query.get("limit", ""))
    if request.query.get("resourceVersion") == "0" and not start:
        limit = 0
    keys = sorted(key for key, item in state.items() if key >= start and chosen(key, item))
    meta: dict[str, object] = {"resourceVersion": str(version)}
    if kind.custom:
        meta["continue"] = ""
    if 0 < limit < len(keys):
        meta["continue"] = _token(version, keys[limit - 1])
        if not chosen.selective:
            meta["remainingItemCount"] = len(keys) - limit
        keys = keys[:limit]
    return _page(kind, meta, [state[key] for key in keys])


def _page(kind: Kind, meta: dict[str, object], items: list[Item]) -> bytes:
    names = b'"kind":"%bList","apiVersion":"%b"' % (kind.kind.encode(), kind.api_version.encode())
    if kind.custom:
        names = b'"apiVersion":"%b"' % kind.api_version.encode()
    cut = 0 if kind.custom else len(kind.opening) + 1
    told = b",".join((b"{" if cut else b"") + item.data[cut:] for item in items)
    if kind.custom:
        return b'{%b,"items":[%b],"kind":"%bList","metadata":%b}' % (
            names,
            told,
            kind.kind.encode(),
            orjson.dumps(meta),
        )
    return b'{%b,"metadata":%b,"items":[%b]}' % (names, orjson.dumps(meta), told)


def expired_status(store: Store, kind: Kind, asked: int) -> dict[str, object]:
    """The Status of a watch from a version that is forgotten."""
    return status(410, "Expired", too_old(asked, store.oldest(kind))["message"])
