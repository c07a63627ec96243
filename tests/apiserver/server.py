# SPDX-License-Identifier: Apache-2.0
"""A stand-in for kube-apiserver: HTTPS on a loopback address, in a thread with a loop of its own.

    with ApiServer(namespace="kserve-test") as server:
        server.apply(tutorial("v0.18"))
        ...                                  # start what is tested with server.environ and server.service_account
        server.patch("pods", "kserve-test", "a", {"status": {"conditions": [...]}})

Every method may be called from any thread. After the block no thread and no socket is left. Namespaces need not be
made; contents are not validated (see store.py and writing.py); one difference to the real server is on purpose: an
object's status is set by `apply` as it stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import orjson
import yaml
from aiohttp import web

from tests.apiserver import files, writing
from tests.apiserver.certificates import Authority, write_pair
from tests.apiserver.kinds import GVP, Kind, find_kind, kind_of
from tests.apiserver.request import Request
from tests.apiserver.reviews import Reviews
from tests.apiserver.rules import Rules
from tests.apiserver.status import too_many, trouble
from tests.apiserver.store import Body, Store, key_of
from tests.apiserver.users import Users, new_token, service_account_user
from tests.apiserver.web_app import WebApp

T = TypeVar("T")
Objects = str | Mapping[str, Any] | Iterable[Mapping[str, Any]]


class ApiServer:
    """`folder` keeps certificates and the service account directory; without one, a temporary folder does.

    `bookmark_s` is the interval of bookmarks (about a minute in the real server); `history` the changes kept per kind.
    """

    def __init__(
        self,
        *,
        namespace: str = "kserve-test",
        service_account: str = "qwen-instruct-epp-sa",
        host: str = "127.0.0.1",
        port: int = 0,
        folder: Path | None = None,
        bookmark_s: float = 1.0,
        history: int = 4096,
    ) -> None:
        self.host, self.port, self.namespace = host, port, namespace
        self._cleanup = contextlib.ExitStack()
        self.folder = folder or Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="apiserver-")))
        self._authority = Authority()
        self.ca_file = self.folder / "ca.crt"
        self.ca_file.write_bytes(self._authority.pem)
        self._pair = write_pair(self.folder, "server", self._authority.server())
        self.users = Users()
        self.user = service_account_user(namespace, service_account)
        self._account = files.ServiceAccountDir(self.folder / "serviceaccount")
        self.service_account = self._account.path
        self.token = ""
        self.rotate_token()
        self.rules = Rules(namespace, self._uninstalled)
        self._reviews = Reviews(self.users, self.rules)
        self._store = Store(self._changed, history=history)
        self._web = WebApp(self._store, self.users, self.rules, self._reviews, bookmark_s=bookmark_s)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="apiserver", daemon=True)
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.back()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close everything; a second time does nothing."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            self.away()
            self._call(self._drain())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        self._cleanup.close()

    async def _drain(self) -> None:
        """Nothing of ours is left on the loop, and what was aborted is closed."""
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def _soon(self, call: Callable[..., Any], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)

    def _changed(self, kind: Kind) -> None:
        self._soon(self._web.wake, kind)

    def _uninstalled(self, names: frozenset[GVP]) -> None:
        self._soon(self._web.end_watches, False, names)

    # Where it is, and how to convince it.

    @property
    def url(self) -> str:
        """https://address:port."""
        return f"https://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What kubelet sets in every container."""
        return {"KUBERNETES_SERVICE_HOST": self.host, "KUBERNETES_SERVICE_PORT": str(self.port)}

    def kubeconfig(
        self,
        path: Path,
        *,
        auth: Literal["token", "token-file", "certificate"] = "token",
        inline: bool = False,
        user: str = "",
        groups: tuple[str, ...] = (),
    ) -> Path:
        """Write a kubeconfig for the service account's user, or by certificate for any `user` of `groups`."""
        certificate = None
        if auth == "certificate":
            certificate = write_pair(
                path.parent, path.name + "-client", self._authority.client(user or self.user.name, groups)
            )
        return files.kubeconfig(
            path,
            server=self.url,
            namespace=self.namespace,
            ca=self.ca_file,
            token=self.token if auth == "token" else "",
            token_file=self.service_account / "token" if auth == "token-file" else None,
            certificate=certificate,
            inline=inline,
        )

    def rotate_token(self, *, revoke: bool = True) -> str:
        """A new token in the service account directory; the old one is refused from now on, if `revoke`."""
        if revoke:
            self.users.pop(self.token, None)
        self.token = new_token(self.user, self.namespace)
        self.users[self.token] = (self.user.name, self.user.groups)
        self._account.write(token=self.token.encode(), ca_crt=self._authority.pem, namespace=self.namespace.encode())
        return self.token

    def may(self, subject: str, verb: str, path: str) -> None:
        """From now on a SubjectAccessReview says that the user or group may, e.g. `get` on `/metrics`."""
        self._reviews.grants.append((subject, verb, path))

    # The objects.

    def apply(self, objects: Objects) -> None:
        """Make or replace objects, given as YAML text, as a dict or as dicts. Wrong types in them are kept."""
        if isinstance(objects, str):
            found: Iterable[Any] = yaml.safe_load_all(objects)
        else:
            found = [objects] if isinstance(objects, Mapping) else objects
        for body in found:
            if body is None:
                continue
            copy = orjson.loads(orjson.dumps(body))
            copy["metadata"].pop("resourceVersion", None)
            self._store.put(kind_of(copy), copy)

    def patch(self, what: Any, namespace: str, name: str, change: Mapping[str, Any]) -> Body:
        """Merge into an object (RFC 7386), its status too; the object as it is then."""
        kind = find_kind(what)
        with self._store.lock:
            item = self._store.get(kind, key_of(kind, namespace, name))
            if item is None:
                raise KeyError(f"{kind.qualified} {namespace}/{name} is not there")
            return self._store.put(kind, writing.merge(item.load(), change)).load()

    def delete(self, what: Any, namespace: str, name: str, *, grace: bool = False) -> None:
        """Delete at once, or with `grace`: the deletionTimestamp is set, and `finish` ends it."""
        kind = find_kind(what)
        with self._store.lock:
            item = self._store.get(kind, key_of(kind, namespace, name))
            if item is None:
                raise KeyError(f"{kind.qualified} {namespace}/{name} is not there")
            if grace:
                writing.remove(self._store, kind, item, grace_s=None)
            else:
                self._store.remove(kind, key_of(kind, namespace, name))

    def finish(self, what: Any, namespace: str, name: str) -> None:
        """The grace is over: the object goes."""
        self.delete(what, namespace, name)

    def objects(self, what: Any, namespace: str | None = None) -> list[Body]:
        """Copies of what is there, by namespace and name."""
        items, _ = self._store.state(find_kind(what))
        bodies = [items[key].load() for key in sorted(items)]
        return [body for body in bodies if namespace in (None, body["metadata"].get("namespace", ""))]

    def object(self, what: Any, namespace: str, name: str) -> Body | None:
        """A copy of one object, None when it is not there."""
        kind = find_kind(what)
        item = self._store.get(kind, key_of(kind, namespace, name))
        return None if item is None else item.load()

    @property
    def resource_version(self) -> int:
        """The last one given."""
        return self._store.version

    # What was asked.

    @property
    def requests(self) -> list[Request]:
        """Every request so far, oldest first."""
        return self._web.requests

    def asked(
        self,
        verb: str | None = None,
        plural: str | None = None,
        *,
        group: str | None = None,
        namespace: str | None = None,
        code: int | None = None,
    ) -> list[Request]:
        """The requests so far with that verb, plural ("pods/status" with a subresource), group, namespace and answer."""
        wanted = (verb, plural, group, namespace, code)
        return [
            one
            for one in list(self.requests)
            if all(
                want in (None, is_)
                for want, is_ in zip(wanted, (one.verb, one.resource, one.group, one.namespace, one.code), strict=True)
            )
        ]

    def wait(self, true: Callable[[], Any], *, patience_s: float = 20.0, what: str = "") -> None:
        """Return when `true()` is; AssertionError after `patience_s`."""
        end = time.monotonic() + patience_s
        while not true():
            if time.monotonic() > end:
                raise AssertionError(f"waited {patience_s:g} s in vain for {what or true}")
            time.sleep(0.005)

    # Faults.

    @property
    def watching(self) -> int:
        """The watches that are open."""
        return len(self._web.watches)

    def away(self) -> None:
        """Break every connection and refuse new ones."""
        self._call(self._close())

    def back(self) -> None:
        """Serve (again), at the same port."""
        self._call(self._open())

    async def _open(self) -> None:
        if self._runner is not None:
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._pair)
        context.load_verify_locations(cadata=self._authority.pem.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        runner = web.AppRunner(self._web.application(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(
                runner, self.host, self.port, ssl_context=context, reuse_address=True, backlog=512
            ).start()
        except BaseException:
            await runner.cleanup()
            raise
        self.port = runner.addresses[0][1]
        self._runner = runner

    async def _close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for site in list(runner.sites):
            await site.stop()
        self._web.end_watches()
        if runner.server is not None:
            for connection in runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
        await runner.cleanup()

    def drop_watches(self, *, torn: bool = False) -> None:
        """End every watch: in order, or `torn` in the middle of an event with the connection broken."""
        self._soon(self._web.end_watches, torn)

    def compact(self, *, as_status: bool = False) -> None:
        """Forget the history: watches and pages from before get 410, as an ERROR event or as the HTTP status."""
        self._web.faults.gone_as_status = as_status
        self._store.compact()

    def throttle(self, count: int, retry_after: float = 1, *, as_status: bool = False) -> None:
        """The next `count` requests get 429 with Retry-After (seconds), as a text or as a Status."""
        self._web.faults.push([too_many(retry_after, as_status) for _ in range(count)])

    def fail(self, count: int, code: int = 500) -> None:
        """The next `count` requests get 500, 503 or 504."""
        self._web.faults.push([trouble(code) for _ in range(count)])

    def slow(self, seconds: float) -> None:
        """Every answer takes so long from now on; 0 ends that."""
        self._web.faults.slow_s = seconds
