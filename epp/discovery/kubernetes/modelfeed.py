# SPDX-License-Identifier: Apache-2.0
"""InferenceObjectives, InferenceModelRewrites and InferenceModels of a namespace or the cluster, shared out to pools.

All three kinds are optional. API discovery says which are installed, and in which group: llm-d.ai is preferred, and
inference.networking.x-k8s.io taken where it is the only one. What is not installed is looked for again every five
minutes, in silence. What may not be read is told once and asked for again ever more rarely; the pools' endpoints do
not wait for any of it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from epp.contract.errors import DiscoveryError
from epp.contract.models import Models
from epp.discovery.kubernetes.objects import InferenceModel, Objective, Rewrite
from epp.discovery.kubernetes.podfeed import Sleep, Tell
from epp.discovery.kubernetes.precedence import Statement, models_of, read_model, read_objective, read_rewrite
from epp.kube.api import Api
from epp.kube.errors import ApiError
from epp.kube.reflector import Reflector
from epp.kube.resource import (
    GIE_X_GROUP,
    LLM_D_GROUP,
    MODELS_X,
    OBJECTIVES,
    OBJECTIVES_X,
    REWRITES,
    REWRITES_X,
    Resource,
)

log = logging.getLogger("epp.discovery")

LOOK_AGAIN_S = 300.0
"""How often API discovery is asked which kinds are installed."""
ASK_AGAIN_S = 30.0
"""How long to wait when API discovery does not answer."""
VERSION = "v1alpha2"


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind, by group: the preferred one first."""

    resources: tuple[Resource, ...]
    decode: type[Any]
    read: Callable[[Any], Statement]

    @property
    def plural(self) -> str:
        return self.resources[0].plural


_KINDS = (
    _Kind((OBJECTIVES, OBJECTIVES_X), Objective, read_objective),
    _Kind((REWRITES, REWRITES_X), Rewrite, read_rewrite),
    _Kind((MODELS_X,), InferenceModel, read_model),
)


class _Statements:
    """What the objects of one kind say, while one group of it is watched."""

    def __init__(self, kind: _Kind, changed: Callable[[], None], tell: Tell) -> None:
        self.kind = kind
        self.resource: Resource | None = None
        self.task: asyncio.Task[None] | None = None
        self.by_key: dict[str, Statement] = {}
        self._problems: dict[str, str] = {}
        self._unreadable: dict[str, str] = {}
        self._changed = changed
        self._tell = tell

    def changed(self, store: Mapping[str, Any]) -> None:
        """The objects are these. One that makes no sense says what it said before."""
        before, self.by_key, self._problems = self.by_key, {}, {}
        for key, obj in store.items():
            if obj.metadata.deletion_timestamp is not None:
                continue
            try:
                self.by_key[key] = self.kind.read(obj)
            except DiscoveryError as error:
                self._problems[key] = str(error)
                if key in before:
                    self.by_key[key] = before[key]
        self._report()
        if self.by_key != before:
            self._changed()

    def told(self, error: ApiError | None) -> None:
        """The watch fails, or works."""
        self._tell(self.kind.plural, None if error is None else str(error))

    def unreadable(self, key: str, line: str | None) -> None:
        """An object has, or no longer has, a field of a wrong type."""
        self._unreadable.pop(key, None)
        if line is not None:
            self._unreadable[key] = f"{self.kind.plural[:-1]} {key}: {line}"
        self._report()

    def stop(self) -> asyncio.Task[None] | None:
        """Watch it no more; what is known stays. Returns the task that watched, which is being cancelled."""
        task, self.task, self.resource = self.task, None, None
        if task is not None:
            task.cancel()
        return task

    def forget(self) -> None:
        """The kind is not installed any more, or another group of it is to be watched."""
        self._unreadable = {}
        self.changed({})
        self.told(None)

    def _report(self) -> None:
        lines = [*self._problems.values(), *self._unreadable.values()]
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        self._tell(f"{self.kind.plural}-malformed", lines[0] + more if lines else None)


@dataclass(slots=True, eq=False)
class _Follower:
    group: str
    key: str
    changed: Callable[[Models], None]
    models: Models | None = None


class ModelFeed:
    """Follows the optional kinds. `namespace` None: in all namespaces.

    `tell` is told under the plural of each kind (`inferenceobjectives`, `inferencemodelrewrites`, `inferencemodels`)
    what is wrong with it, with `-malformed` appended what is wrong with its objects, and `api-discovery`.
    """

    def __init__(
        self, api: Api, namespace: str | None, *, tell: Tell, rng: random.Random, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._tell = tell
        self._rng = rng
        self._sleep = sleep
        self._kinds = [_Statements(kind, self._recompute, tell) for kind in _KINDS]
        self._followers: list[_Follower] = []
        self._said: set[str] = set()

    def follow(self, namespace: str, group: str, name: str, changed: Callable[[Models], None]) -> Callable[[], None]:
        """Tell `changed` what objects say of that pool, now if they say anything, then with each change.

        Returns what ends it.
        """
        follower = _Follower(group, f"{namespace}/{name}", changed, Models())
        self._followers.append(follower)
        self._inform(follower, *self._by_pool())

        def unfollow() -> None:
            if follower in self._followers:
                self._followers.remove(follower)

        return unfollow

    async def run(self) -> None:
        """Follow the kinds until cancelled."""
        try:
            while True:
                await self._sleep(await self._look())
        finally:
            tasks = [kind.stop() for kind in self._kinds]
            await asyncio.gather(*filter(None, tasks), return_exceptions=True)

    async def _look(self) -> float:
        """Ask which kinds are installed, and watch those. Returns when to look again, in seconds."""
        try:
            served = {group: await self._api.served(group, VERSION) for group in (LLM_D_GROUP, GIE_X_GROUP)}
        except ApiError as error:
            self._tell("api-discovery", str(error))
            return ASK_AGAIN_S
        self._tell("api-discovery", None)
        for kind in self._kinds:
            there = [resource for resource in kind.kind.resources if resource.plural in served[resource.group]]
            self._comment(kind.kind, there)
            self._watch(kind, there[0] if there else None)
        return LOOK_AGAIN_S

    def _watch(self, kind: _Statements, resource: Resource | None) -> None:
        if resource == kind.resource:
            return
        if kind.stop() is not None:
            kind.forget()
        if resource is None:
            return
        reflector: Reflector[Any] = Reflector(
            self._api, resource, self._namespace, kind.kind.decode, kind.changed,
            told=kind.told, rng=self._rng, sleep=self._sleep, malformed=kind.unreadable,
        )  # fmt: skip
        kind.resource, kind.task = resource, asyncio.create_task(reflector.run())

    def _comment(self, kind: _Kind, there: list[Resource]) -> None:
        if len(kind.resources) == 1 or not there:
            return
        new, old = kind.resources
        if len(there) == 2:
            self._say(logging.INFO, f"{new} and {old} are both installed; objects of the latter are ignored")
        elif there == [old]:
            self._say(logging.INFO, f"{old} is deprecated; install the CRD {new} and move the objects there")

    def _say(self, level: int, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            log.log(level, "%s", line)

    def _by_pool(self) -> tuple[dict[str, list[Statement]], ...]:
        """The statements of each kind by the pool they name."""
        by_kind = []
        for kind in self._kinds:
            by_pool: dict[str, list[Statement]] = {}
            for statement in kind.by_key.values():
                by_pool.setdefault(statement.pool_key, []).append(statement)
            by_kind.append(by_pool)
        return tuple(by_kind)

    def _recompute(self) -> None:
        by_kind = self._by_pool()
        for follower in self._followers:
            self._inform(follower, *by_kind)

    def _inform(self, follower: _Follower, *by_kind: dict[str, list[Statement]]) -> None:
        objectives, rewrites, models = (by_pool.get(follower.key, ()) for by_pool in by_kind)
        found = models_of(follower.group, objectives, rewrites, models)
        if found != follower.models:
            follower.models = found
            follower.changed(found)
