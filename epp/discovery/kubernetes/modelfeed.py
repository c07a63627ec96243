# SPDX-License-Identifier: Apache-2.0
"""InferenceObjectives, InferenceModelRewrites and InferenceModels of a namespace or the cluster, shared out to pools.

All three kinds are optional. API discovery says which are installed, and in which group: llm-d.ai is preferred, and
inference.networking.x-k8s.io taken where it is the only one that is there, or that may be read (the roles of KServe
v0.18 and v0.19 know no llm-d.ai); llm-d.ai is asked for again, and holds as soon as it may be read. What is not
installed is looked for again every five minutes, in silence. What may not be read is told once and asked for again ever
more rarely; the pools' endpoints do not wait for any of it.
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
from epp.kube.errors import ApiError, Forbidden, Unreachable
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


class _Group:
    """What the objects of one kind say in one group, while it is watched.

    * listed: whether it was ever read; refused: whether our role forbids that
    """

    def __init__(self, kind: _Kind, resource: Resource, heard: Callable[[_Group], None]) -> None:
        self.resource = resource
        self.task: asyncio.Task[None] | None = None
        self.by_key: dict[str, Statement] = {}
        self.listed = self.refused = False
        self.error: ApiError | None = None
        self._kind = kind
        self._problems: dict[str, str] = {}
        self._unreadable: dict[str, str] = {}
        self._heard = heard

    @property
    def malformed(self) -> list[str]:
        """What is wrong with its objects, one line each."""
        return [*self._problems.values(), *self._unreadable.values()]

    def changed(self, store: Mapping[str, Any]) -> None:
        """The objects are these. One that makes no sense says what it said before."""
        before, self.by_key, self._problems = self.by_key, {}, {}
        for key, obj in store.items():
            if obj.metadata.deletion_timestamp is not None:
                continue
            try:
                self.by_key[key] = self._kind.read(obj)
            except DiscoveryError as error:
                self._problems[key] = str(error)
                if key in before:
                    self.by_key[key] = before[key]
        if not self.listed:
            self.listed, self.refused, self.error = True, False, None
        self._heard(self)

    def told(self, error: ApiError | None) -> None:
        """The watch fails, or works."""
        if isinstance(error, Unreachable):
            return  # says nothing about the kind, and is told of the connection
        self.error = error
        # Whoever could read it once goes on with what was read.
        self.refused = self.refused or (isinstance(error, Forbidden) and not self.listed)
        self._heard(self)

    def unreadable(self, key: str, line: str | None) -> None:
        """An object has, or no longer has, a field of a wrong type."""
        self._unreadable.pop(key, None)
        if line is not None:
            self._unreadable[key] = f"{self._kind.plural[:-1]} {key}: {line}"
        self._heard(self)


class _Statements:
    """What the objects of one kind say, in the group that holds at the moment.

    The preferred group is watched where it is installed. The other one is watched too as long as the preferred one is
    forbidden, or was not read yet and the other one is in use. What is known stays until another group was read.
    """

    def __init__(
        self,
        kind: _Kind,
        watch: Callable[[_Kind, _Group], asyncio.Task[None]],
        changed: Callable[[], None],
        tell: Tell,
        say: Callable[[str], None],
    ) -> None:
        self.by_key: dict[str, Statement] = {}
        self._kind = kind
        self._installed: tuple[Resource, ...] = ()
        self._groups: dict[Resource, _Group] = {}
        self._watch = watch
        self._changed = changed
        self._tell = tell
        self._say = say

    def install(self, served: Mapping[str, frozenset[str]]) -> None:
        """These plurals are served, by group."""
        self._installed = tuple(
            resource for resource in self._kind.resources if resource.plural in served[resource.group]
        )
        self._settle()

    def stop(self) -> list[asyncio.Task[None]]:
        """Watch it no more; what is known stays. Returns the tasks that watched, which are being cancelled."""
        tasks = [group.task for group in self._groups.values() if group.task is not None]
        self._groups = {}
        for task in tasks:
            task.cancel()
        return tasks

    def _heard(self, group: _Group) -> None:
        # One that is watched no more may have a last word on its way.
        if self._groups.get(group.resource) is group:
            self._settle()

    def _settle(self) -> None:
        """Watch whom to watch, and say what follows from what is known."""
        wanted = self._wanted()
        for resource in [resource for resource in self._groups if resource not in wanted]:
            task = self._groups.pop(resource).task
            if task is not None:
                task.cancel()
        for resource in wanted:
            if resource not in self._groups:
                self._groups[resource] = group = _Group(self._kind, resource, self._heard)
                group.task = self._watch(self._kind, group)
        watched = [self._groups[resource] for resource in wanted]
        holds = next((group for group in watched if group.listed), None)
        self._comment(watched, holds)
        self._report(watched)
        statements = holds.by_key if holds is not None else self.by_key if watched else {}
        if statements != self.by_key:
            self.by_key = statements
            self._changed()

    def _wanted(self) -> tuple[Resource, ...]:
        """Who is to be watched, the preferred one first."""
        first = self._groups.get(self._installed[0]) if self._installed else None
        # Until the preferred group was read, what is known from the other one holds.
        both = bool(self._groups) if first is None else first.refused or (len(self._groups) > 1 and not first.listed)
        return self._installed if both else self._installed[:1]

    def _comment(self, watched: list[_Group], holds: _Group | None) -> None:
        if not watched or len(self._kind.resources) == 1:
            return
        new, old = self._kind.resources
        if watched[0].resource == old:
            self._say(f"{old} is deprecated; install the CRD {new} and move the objects there")
        elif watched[0] is holds and old in self._installed:
            self._say(f"{new} and {old} are both installed; objects of the latter are ignored")
        elif watched[0].refused and holds is not None:
            self._say(f"{new} may not be read by our role; objects of {old} are used")

    def _report(self, watched: list[_Group]) -> None:
        # A refusal is nothing to mend while another group may be read.
        all_refused = all(group.refused for group in watched)
        errors = [str(group.error) for group in watched if group.error and (all_refused or not group.refused)]
        self._tell(self._kind.plural, "; ".join(errors) or None)
        lines = [line for group in watched for line in group.malformed]
        # Without a number: each object that comes to it would be told anew, and the log has named it.
        more = " (and others, which the log names)" if len(lines) > 1 else ""
        self._tell(f"{self._kind.plural}-malformed", lines[0] + more if lines else None)


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
        self._kinds = [_Statements(kind, self._watch, self._recompute, tell, self._say) for kind in _KINDS]
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
            tasks = [task for kind in self._kinds for task in kind.stop()]
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> float:
        """Ask which kinds are installed, and watch those. Returns when to look again, in seconds."""
        try:
            served = {group: await self._api.served(group, VERSION) for group in (LLM_D_GROUP, GIE_X_GROUP)}
        except Unreachable:
            return ASK_AGAIN_S
        except ApiError as error:
            self._tell("api-discovery", str(error))
            return ASK_AGAIN_S
        self._tell("api-discovery", None)
        for kind in self._kinds:
            kind.install(served)
        return LOOK_AGAIN_S

    def _watch(self, kind: _Kind, group: _Group) -> asyncio.Task[None]:
        reflector: Reflector[Any] = Reflector(
            self._api, group.resource, self._namespace, kind.decode, group.changed,
            told=group.told, rng=self._rng, sleep=self._sleep, malformed=group.unreadable,
        )  # fmt: skip
        return asyncio.create_task(reflector.run())

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            log.info("%s", line)

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
