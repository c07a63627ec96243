# SPDX-License-Identifier: Apache-2.0
"""What the service does in a Kubernetes cluster: one connection to its API server, and what is asked of it.

Endpoints and models of the pool, who leads (with --ha-enable-leader-election), and who may read the metrics page. None
of it can end the process: what the API server refuses or does not answer is degraded, said once, and tried again.

Kubernetes is asked when a pool or a selector is named and endpoints come from nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence

from epp.admin.access import Review
from epp.admin.review import Reviewer, on_loop
from epp.contract.discovery import EndpointSpec
from epp.contract.endpoints import Clock
from epp.contract.models import Models
from epp.discovery.kubernetes.poolspec import PoolSpec, selector_pool
from epp.discovery.kubernetes.source import KubernetesSource, PoolTarget
from epp.election.election import Election
from epp.election.names import lease_name, new_identity, pool_of_pod
from epp.election.watching import lease_watch
from epp.kube.access import Access, find_access
from epp.kube.api import Api
from epp.observe.degraded import Tell
from epp.service.flags.options import Options
from epp.service.served import ServedPool

log = logging.getLogger("epp.service")

_API = "kubernetes-api"
"""The matter under which it is told that the API server does not answer, whatever is followed there."""
_LAST_WORD_S = 1.0
"""How long a process that must end at once waits for its lease to be given up."""


def wanted(options: Options) -> bool:
    """Whether endpoints are to be found in Kubernetes, if nothing else says where they are."""
    return bool(options.pool_name or options.pool_names or options.endpoint_selector)


def access_of(options: Options, environ: Mapping[str, str]) -> Access | None:
    """How to reach the API server; None, and one warning, when nothing says how.

    Raises `StartError` when something does and cannot be used.
    """
    access = find_access(environ, options.kubeconfig)
    if access is None:
        name = options.pool_name or ", ".join(options.pool_names)
        named = f"pool {options.pool_namespace}/{name}" if name else "--endpoint-selector"
        log.warning(
            "%s is named, but no API server: this is no pod of a cluster, and there is no kubeconfig; give "
            "--kubeconfig FILE, or --endpoints IP:PORT,...",
            named,
        )
    else:
        log.info("Kubernetes: %s, by %s", access.server, access.origin)
    return access


class Cluster:
    """The connection, from `__init__` to `close`."""

    def __init__(self, access: Access, options: Options, tell: Tell, clock: Clock, rng: random.Random) -> None:
        self.api = Api(access, reachable=lambda line: tell(_API, line))
        self._options = options
        self._tell = tell
        self._clock = clock
        self._rng = rng
        self._election: Election | None = None
        self._leaving = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def active(self) -> bool:
        """Whether requests should come to this replica."""
        return self._election is None or self._election.active or self._leaving

    @property
    def contends(self) -> bool:
        """Whether there may be other replicas, of which one is active."""
        return self._election is not None

    @property
    def holder(self) -> str:
        """Which replica held the lease when it was last seen; "" when none did."""
        return self._election.holder if self._election is not None else ""

    def follow(self, served: ServedPool, changed: Callable[[], None]) -> None:
        """Keep `served` as the API server says; `changed` is called when what health says may be another thing.

        Raises `EppError` for a group or selector that cannot be used.
        """
        options = self._options
        target: PoolTarget | PoolSpec
        if options.endpoint_selector:
            if not options.pod_name:
                log.warning(
                    "POD_NAME is not set, so the pool of --endpoint-selector is called %s, in its lease too; "
                    "set it from the pod's metadata.name",
                    self._pool,
                )
            target = selector_pool(
                options.pool_namespace, self._pool, options.endpoint_selector, options.endpoint_target_ports
            )
        else:
            target = PoolTarget(options.pool_namespace, options.pool_name, options.pool_group or None)
        source = KubernetesSource(
            self.api, target, _Told(served, changed), tell=self._tell, rng=self._rng, clock=self._clock
        )
        self.run(source.run())

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Do `work`, a source of pools for example, as long as the connection lasts."""
        self._tasks.append(asyncio.create_task(work))

    @property
    def _pool(self) -> str:
        """The pool's name; without one, that of our own Deployment."""
        return self._options.pool_name or pool_of_pod(self._options.pod_name) or "epp"

    def contend(self, changed: Callable[[], None]) -> None:
        """Take part in the election, if it is asked for; `changed` is called when `active` is another one."""
        options = self._options
        if not options.ha_enable_leader_election:
            return
        namespace = options.lease_namespace or options.pool_namespace
        name = lease_name(namespace, self._pool)
        identity = new_identity(options.pod_name or socket.gethostname())
        self._election = election = Election(
            self.api, namespace, name, identity, clock=self._clock, rng=self._rng, tell=self._tell
        )

        def told(active: bool) -> None:
            log.info("this replica %s", "is active" if active else "stands by for another one")
            changed()

        self.run(election.run(told))
        self.run(lease_watch(self.api, namespace, name, election.look, self._rng).run())

    def review(self) -> Review | None:
        """Who may read the metrics page, asked from the threads of the admin server; None: everybody."""
        if not self._options.metrics_endpoint_auth:
            return None
        return on_loop(Reviewer(self.api, self._tell, clock=self._clock), asyncio.get_running_loop())

    async def give_up_lease(self) -> None:
        """Let another replica lead at once. Who was active stays it: the other one needs a moment until it is asked."""
        if self._election is not None:
            self._leaving = self.active
            await self._election.release()

    async def close(self) -> None:
        """End what runs, and the connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S):
                await self.give_up_lease()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.api.close()


class _Told:
    """Hands on what is told of a pool to the one that serves it."""

    def __init__(self, served: ServedPool, changed: Callable[[], None]) -> None:
        self._served = served
        self._changed = changed

    def pool(self, pool: PoolSpec) -> None:
        selector = f"selector {pool.selector}" if pool.selector.requirements else "an empty selector, so every pod"
        log.info("%s: %s, ports %s", pool, selector, ", ".join(map(str, pool.ports)))

    def endpoints(self, endpoints: Sequence[EndpointSpec]) -> None:
        before = len(self._served.pool), self._served.pool.synced
        self._served.endpoints(endpoints)
        now = len(self._served.pool)
        if (now, True) != before:
            log.info("endpoints found: %d", now)
        self._changed()

    def gone(self) -> None:
        self._served.gone()
        self._changed()

    def models(self, models: Models) -> None:
        self._served.models(models)
