# SPDX-License-Identifier: Apache-2.0
"""What etcd and the watch cache are to the real server: objects, one counter of resource versions, and the history.

Objects are kept as the bytes that are sent, with what selectors need beside them: a thousand pods of ten kilobytes
cost ten megabytes. A lock guards all of it, because tests change objects from their own threads. Nothing is validated:
an object may have any wrong type in it except in its name.

Invariants: a resource version is given once; `history` of a kind is in its order; `at` can tell every state that is
still in the history.
"""

from __future__ import annotations

import bisect
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from tests.apiserver.kinds import Kind
from tests.apiserver.selecting import fields_of, labels_of

Body = dict[str, Any]
Key = str
"""`namespace/name`, or the name alone for what has no namespace."""

FIRST_VERSION = 99_900
"""Soon one digit longer, so that a client which compares versions as texts is caught."""


@dataclass(frozen=True, slots=True)
class Item:
    """One state of one object."""

    data: bytes
    version: int
    uid: str
    labels: dict[str, str]
    fields: dict[str, str]

    def load(self) -> Body:
        """A copy to change."""
        body: Body = orjson.loads(self.data)
        return body


@dataclass(frozen=True, slots=True)
class Change:
    """`old` None: added; `new` None: deleted, and `gone` is the last state with the version of the deletion."""

    version: int
    key: Key
    old: Item | None
    new: Item | None
    gone: Item | None = None


@dataclass(slots=True)
class Shelf:
    """All of one kind. `dropped` counts the changes that the history has forgotten; `floor` is the last one's version."""

    items: dict[Key, Item] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    dropped: int = 0
    floor: int = 0


def now() -> str:
    """The time as metadata writes it, in seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def key_of(kind: Kind, namespace: str, name: str) -> Key:
    """Where an object is kept."""
    return f"{namespace}/{name}" if kind.namespaced else name


class Store:
    """Every method may be called from any thread. `changed(kind)` is called after each change, under no lock."""

    def __init__(self, changed: Callable[[Kind], None], *, history: int = 4096) -> None:
        self.lock = threading.RLock()
        self.version = FIRST_VERSION
        self.floor = FIRST_VERSION
        self._changed = changed
        self._history = history
        self._shelves: dict[Kind, Shelf] = {}

    def shelf(self, kind: Kind) -> Shelf:
        """The kind's shelf; hold the lock."""
        return self._shelves.setdefault(kind, Shelf())

    def get(self, kind: Kind, key: Key) -> Item | None:
        """The present state."""
        with self.lock:
            return self.shelf(kind).items.get(key)

    def put(self, kind: Kind, body: Body) -> Item:
        """Make or replace; what identifies an object is filled in or kept. No change, no event.

        A uid of its own in `body`, another than the one that is there, is another object: the old one is deleted.
        """
        with self.lock:
            meta = body["metadata"]
            if kind.namespaced:
                meta.setdefault("namespace", "default")
            key = key_of(kind, meta.get("namespace", ""), meta["name"])
            old = self.shelf(kind).items.get(key)
            if old is not None and meta.get("uid") not in (None, old.uid):
                self.remove(kind, key)
                old = None
            item = self._made(kind, body, old)
            if old is not None and item is old:
                return old
            self.shelf(kind).items[key] = item
            self._record(kind, Change(item.version, key, old, item))
        self._changed(kind)
        return item

    def _made(self, kind: Kind, body: Body, old: Item | None) -> Item:
        meta = body["metadata"]
        before = old.load() if old is not None else None
        past = before["metadata"] if before is not None else {}
        meta["uid"] = past.get("uid") or meta.get("uid") or str(uuid.uuid4())
        meta["creationTimestamp"] = past.get("creationTimestamp") or meta.get("creationTimestamp") or now()
        if kind.generation:
            meta["generation"] = past.get("generation", 0) + (before is None or _content(before) != _content(body))
        if before is not None and old is not None:
            meta["resourceVersion"] = past["resourceVersion"]
            if self._bytes(kind, body) == old.data:
                return old
        self.version += 1
        meta["resourceVersion"] = str(self.version)
        return self._item(kind, body)

    @staticmethod
    def _bytes(kind: Kind, body: Body) -> bytes:
        """The kind first, then metadata with sorted keys: one form for one state."""
        rest = {name: part for name, part in body.items() if name not in ("kind", "apiVersion")}
        return kind.opening + b"," + orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)[1:]

    def _item(self, kind: Kind, body: Body) -> Item:
        data = self._bytes(kind, body)
        return Item(data, self.version, body["metadata"]["uid"], labels_of(body), fields_of(kind, body))

    def remove(self, kind: Kind, key: Key) -> Item | None:
        """Delete at once; the last state, or None when it was not there."""
        with self.lock:
            old = self.shelf(kind).items.pop(key, None)
            if old is None:
                return None
            self.version += 1
            body = old.load()
            body["metadata"]["resourceVersion"] = str(self.version)
            gone = self._item(kind, body)
            self._record(kind, Change(self.version, key, old, None, gone))
        self._changed(kind)
        return gone

    def _record(self, kind: Kind, change: Change) -> None:
        shelf = self.shelf(kind)
        shelf.history.append(change)
        if len(shelf.history) > self._history:
            half = len(shelf.history) // 2
            shelf.floor = shelf.history[half - 1].version
            shelf.dropped += half
            del shelf.history[:half]

    def compact(self) -> None:
        """Forget the history. Something else in the cluster has changed meanwhile, as always in a real one."""
        with self.lock:
            self.version += 1
            self.floor = self.version

    def oldest(self, kind: Kind) -> int:
        """The lowest resource version from which changes of the kind can be told."""
        with self.lock:
            return max(self.floor, self.shelf(kind).floor)

    def state(self, kind: Kind) -> tuple[dict[Key, Item], int]:
        """What is there now, and the version of now."""
        with self.lock:
            return dict(self.shelf(kind).items), self.version

    def at(self, kind: Kind, version: int) -> dict[Key, Item] | None:
        """What was there at `version`; None when the history does not reach so far."""
        with self.lock:
            if version < self.oldest(kind):
                return None
            items = dict(self.shelf(kind).items)
            for change in reversed(self.shelf(kind).history):
                if change.version <= version:
                    break
                if change.old is None:
                    items.pop(change.key, None)
                else:
                    items[change.key] = change.old
            return items

    def place(self, kind: Kind, version: int) -> int:
        """The place in the history, for `since`, after every change up to `version`."""
        with self.lock:
            shelf = self.shelf(kind)
            return shelf.dropped + bisect.bisect_right(shelf.history, version, key=lambda change: change.version)

    def since(self, kind: Kind, place: int) -> tuple[list[Change], int, int] | None:
        """The changes after `place`, the place after them, and the version of now; None when forgotten."""
        with self.lock:
            shelf = self.shelf(kind)
            if place < shelf.dropped:
                return None
            return shelf.history[place - shelf.dropped :], shelf.dropped + len(shelf.history), self.version


def _content(body: Body) -> Body:
    """What a new generation is counted for: all but metadata and status."""
    return {name: part for name, part in body.items() if name not in ("metadata", "status", "kind", "apiVersion")}
