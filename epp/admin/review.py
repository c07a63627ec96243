# SPDX-License-Identifier: Apache-2.0
"""Asks Kubernetes who may read the metrics page, as controller-runtime's filter of the Go EPP does.

A TokenReview says whose token it is, a SubjectAccessReview whether that user may do `verb` on the path. Answers are
kept for as long as the Go EPP keeps them, known tokens for a minute, permissions for five, refusals for 30 s; a token
that is not known for 10 s. Tokens are kept as hashes under a key of this process. When the API server cannot be asked,
nobody may read, and one line says what would mend it; nothing else suffers.

`Reviewer` lives on the event loop; `on_loop` lets the threads of the admin server ask it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from typing import Any, Generic, Literal, Protocol, TypeVar

import msgspec

from epp.admin.access import Review, Verdict
from epp.contract.endpoints import Clock
from epp.kube.errors import ApiError, Forbidden
from epp.kube.resource import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Resource
from epp.observe.degraded import Tell

MATTER = "metrics-auth"
"""What is degraded while nobody can be let in."""
REVIEW_S = 10.0
"""For both questions together, waiting for a turn included."""

_KNOWN_S = 60.0
_UNKNOWN_S = 10.0
_ALLOWED_S = 300.0
_DENIED_S = 30.0
_MOST_TOKENS = 1024
_MOST_ANSWERS = 4096
_MOST_USER_BYTES = 16 << 10
"""Of a user that is kept; one with thousands of groups is asked for every time."""
_AT_ONCE = 4
_PLACE_S = 1.0
_MOST_WAITING = 32
"""Threads of the admin server that wait for a verdict: half of them, so that probes get an answer meanwhile."""
_AUTHENTICATED = "system:authenticated"

T = TypeVar("T")
V = TypeVar("V")


class Creates(Protocol):
    """What is needed of `epp.kube.api.Api`."""

    async def create(self, resource: Resource, namespace: str | None, body: Any, decode: type[T]) -> T:
        """Raises `ApiError`."""
        ...


class _User(msgspec.Struct, frozen=True, omit_defaults=True):
    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class _TokenStatus(msgspec.Struct, frozen=True):
    authenticated: bool = False
    user: _User = _User()


class _TokenAnswer(msgspec.Struct, frozen=True):
    status: _TokenStatus = _TokenStatus()


class _AccessStatus(msgspec.Struct, frozen=True):
    allowed: bool = False
    denied: bool = False


class _AccessAnswer(msgspec.Struct, frozen=True):
    status: _AccessStatus = _AccessStatus()


class _Kept(Generic[V]):
    """The last `most` answers, each for its time."""

    def __init__(self, most: int, clock: Clock) -> None:
        self._most = most
        self._clock = clock
        self._answers: OrderedDict[bytes, tuple[float, V]] = OrderedDict()

    def get(self, key: bytes) -> V | None:
        found = self._answers.get(key)
        if found is None or found[0] <= self._clock():
            return None
        self._answers.move_to_end(key)
        return found[1]

    def put(self, key: bytes, answer: V, seconds: float) -> None:
        self._answers[key] = self._clock() + seconds, answer
        self._answers.move_to_end(key)
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)


class Reviewer:
    """Used on one event loop. `tell` hears of `MATTER`; `limit_s` is for one verdict."""

    def __init__(self, api: Creates, tell: Tell, *, clock: Clock = time.monotonic, limit_s: float = REVIEW_S) -> None:
        self._api = api
        self._tell = tell
        self._limit_s = limit_s
        self._key = secrets.token_bytes(32)
        self._tokens: _Kept[_User | Literal[False]] = _Kept(_MOST_TOKENS, clock)
        self._access: _Kept[bool] = _Kept(_MOST_ANSWERS, clock)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._wrong: dict[str, str] = {}

    async def verdict(self, token: str, path: str, verb: str) -> Verdict:
        """Whether the one with `token` may do `verb` (an HTTP method, lower case) on `path`. Raises nothing."""
        try:
            async with asyncio.timeout(self._limit_s):
                user = await self._user(token)
                if user is None:
                    return Verdict(401, "Kubernetes does not know this token: it is wrong, or its time is over")
                if await self._may(user, path, verb):
                    return Verdict(200)
                return Verdict(
                    403,
                    f"{_shown(user.username)} may not read this page: grant it the verb {_shown(verb)} on the "
                    f"nonResourceURL {path} in a ClusterRole",
                )
        except TimeoutError:
            self._said(TOKEN_REVIEWS, f"nobody can be let in to the metrics page: no answer within {self._limit_s:g} s")
        except Forbidden as error:
            line = _lacking(error.resource or TOKEN_REVIEWS)
            self._said(error.resource or TOKEN_REVIEWS, line)
            return Verdict(500, line)
        except ApiError as error:
            self._said(error.resource or TOKEN_REVIEWS, f"nobody can be let in to the metrics page: {error}")
        return Verdict(500, "the API server could not be asked who this is; the picker's log says why")

    async def _user(self, token: str) -> _User | None:
        key = hashlib.blake2b(token.encode(), key=self._key, digest_size=32).digest()
        known = self._tokens.get(key)
        if known is None:
            async with self._turns:
                # Somebody may have asked for the same one in the meantime.
                known = self._tokens.get(key)
                if known is None:
                    known = await self._review_token(token)
                    if not known or len(msgspec.json.encode(known)) <= _MOST_USER_BYTES:
                        self._tokens.put(key, known, _KNOWN_S if known else _UNKNOWN_S)
        return known or None

    async def _review_token(self, token: str) -> _User | Literal[False]:
        answer = await self._api.create(TOKEN_REVIEWS, None, _body(TOKEN_REVIEWS, {"token": token}), _TokenAnswer)
        self._said(TOKEN_REVIEWS, None)
        user = answer.status.user
        if not answer.status.authenticated:
            return False
        groups = user.groups or []
        if _AUTHENTICATED not in groups and user.username != "system:anonymous":
            return msgspec.structs.replace(user, groups=[*groups, _AUTHENTICATED])
        return user

    async def _may(self, user: _User, path: str, verb: str) -> bool:
        spec = _spec(user, path, verb)
        key = hashlib.blake2b(msgspec.json.encode(spec, order="sorted"), digest_size=32).digest()
        allowed = self._access.get(key)
        if allowed is None:
            async with self._turns:
                allowed = self._access.get(key)
                if allowed is None:
                    allowed = await self._review_access(spec)
                    self._access.put(key, allowed, _ALLOWED_S if allowed else _DENIED_S)
        return allowed

    async def _review_access(self, spec: dict[str, Any]) -> bool:
        body = _body(SUBJECT_ACCESS_REVIEWS, spec)
        answer = await self._api.create(SUBJECT_ACCESS_REVIEWS, None, body, _AccessAnswer)
        self._said(SUBJECT_ACCESS_REVIEWS, None)
        return answer.status.allowed and not answer.status.denied

    def _said(self, resource: Resource, line: str | None) -> None:
        """Each question is well or wrong for itself; one line stands for both."""
        if line is None:
            self._wrong.pop(resource.plural, None)
        else:
            self._wrong[resource.plural] = line
        self._tell(MATTER, next(iter(self._wrong.values()), None))


def on_loop(reviewer: Reviewer, loop: asyncio.AbstractEventLoop, patience_s: float = REVIEW_S + 2.0) -> Review:
    """For the threads of the admin server: they wait for `reviewer`, which is on `loop`, for `patience_s` at most."""
    places = threading.BoundedSemaphore(_MOST_WAITING)

    def review(token: str, path: str, verb: str) -> Verdict:
        if not places.acquire(timeout=_PLACE_S):
            return Verdict(500, "too many others wait to be let in; ask again later")
        try:
            return ask(token, path, verb)
        finally:
            places.release()

    def ask(token: str, path: str, verb: str) -> Verdict:
        question = reviewer.verdict(token, path, verb)
        try:
            asked = asyncio.run_coroutine_threadsafe(question, loop)
        except RuntimeError:
            question.close()
            return Verdict(500, "the picker has stopped")
        try:
            return asked.result(patience_s)
        except (TimeoutError, concurrent.futures.CancelledError):
            asked.cancel()
            return Verdict(500, "the picker had no time to ask who this is")

    return review


def _spec(user: _User, path: str, verb: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"user": user.username, "nonResourceAttributes": {"path": path, "verb": verb}}
    more = {"uid": user.uid, "groups": user.groups, "extra": user.extra}
    return spec | {name: value for name, value in more.items() if value}


def _body(resource: Resource, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {}, "spec": spec}


def _lacking(resource: Resource) -> str:
    return (
        f"nobody can be let in to the metrics page: the picker's service account lacks the verb create on {resource}; "
        "bind it to the ClusterRole system:auth-delegator, or let everybody in with --metrics-endpoint-auth=false"
    )


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)
