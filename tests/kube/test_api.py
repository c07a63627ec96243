# SPDX-License-Identifier: Apache-2.0
"""The client against the stand-in API server: over TLS, with the service account of a pod."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from epp.contract.errors import StartError
from epp.kube.access import Access, find_access
from epp.kube.api import PAGE_OBJECTS, Api
from epp.kube.credentials import Credential, Fixed
from epp.kube.errors import ApiError, Conflict, Forbidden, Gone, Missing, TooMany, Unauthorized, Unreachable
from epp.kube.objects import Meta, Pod
from epp.kube.resource import LEASES, OBJECTIVES, PODS, POOLS, Resource
from epp.kube.tls import Tls
from epp.kube.watch import Event
from tests.apiserver.server import ApiServer

NAMESPACE = "kserve-test"


class Lease(msgspec.Struct, frozen=True):
    metadata: Meta
    spec: dict[str, Any] = {}


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer(namespace=NAMESPACE, bookmark_s=0.2) as started:
        yield started


@asynccontextmanager
async def api_of(server: ApiServer, access: Access | None = None, **more: Any) -> AsyncIterator[Api]:
    found = access or find_access(server.environ, service_account=server.service_account)
    assert found is not None
    api = Api(found, **more)
    try:
        yield api
    finally:
        await api.close()


def pod(name: str, **more: Any) -> dict[str, Any]:
    labels = {"app": "llm", "name": name}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    } | more


def lease(name: str, holder: str, **metadata: str) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
        "spec": {"holderIdentity": holder},
    }


async def until(true: Callable[[], object], patience_s: float = 15.0) -> None:
    async with asyncio.timeout(patience_s):
        while not true():  # noqa: ASYNC110, what is waited for happens in another thread
            await asyncio.sleep(0.005)


async def test_read_and_list(server: ApiServer) -> None:
    server.apply([pod("a"), pod("b")])
    async with api_of(server) as api:
        one = await api.read(PODS, NAMESPACE, "a", Pod)
        assert (one.metadata.name, one.status.pod_ip) == ("a", "10.0.0.1")
        some, version = await api.list(PODS, NAMESPACE, Pod)
        assert [item.metadata.name for item in some] == ["a", "b"]
        assert int(version) >= 2
        some, _ = await api.list(PODS, None, Pod, label_selector="app=llm,name in (b)")
        assert [item.metadata.name for item in some] == ["b"]
        some, _ = await api.list(PODS, NAMESPACE, Pod, field_selector="metadata.name=a")
        assert [item.metadata.name for item in some] == ["a"]


async def test_a_list_of_many_pages(server: ApiServer) -> None:
    count = 2 * PAGE_OBJECTS + 1
    server.apply([pod(f"p{number:03}") for number in range(count)])
    async with api_of(server) as api:
        found, _ = await api.list(PODS, NAMESPACE, Pod)
    assert [item.metadata.name for item in found] == [f"p{number:03}" for number in range(count)]
    assert len(server.asked("list", "pods")) == 3


async def test_a_malformed_object_costs_only_itself(server: ApiServer) -> None:
    server.apply([pod("a"), pod("bad", status={"podIP": 7}), pod("c")])
    told: list[tuple[str, str]] = []
    async with api_of(server) as api:
        found, _ = await api.list(PODS, NAMESPACE, Pod, malformed=lambda key, why: told.append((key, why)))
    assert [item.metadata.name for item in found] == ["a", "c"]
    assert told == [(f"{NAMESPACE}/bad", "Expected `str`, got `int` - at `$.status.podIP`")]


async def test_watch(server: ApiServer) -> None:
    server.apply(pod("a"))
    async with api_of(server) as api:
        _, version = await api.list(PODS, NAMESPACE, Pod)
        seen: list[Event[Pod]] = []
        async with aclosing(
            api.watch(PODS, NAMESPACE, Pod, resource_version=version, label_selector="app=llm", timeout_s=60)
        ) as events:
            async for event in events:
                if not seen:
                    assert event == Event("BOOKMARK", None, version)
                    server.apply(pod("b"))
                    server.patch("pods", NAMESPACE, "a", {"status": {"phase": "Failed"}})
                    server.delete("pods", NAMESPACE, "b")
                seen.append(event)
                if len(seen) > 4:
                    break
        assert [(event.type, event.key) for event in seen[1:4]] == [
            ("ADDED", f"{NAMESPACE}/b"),
            ("MODIFIED", f"{NAMESPACE}/a"),
            ("DELETED", f"{NAMESPACE}/b"),
        ]
        # A bookmark of the server's own.
        assert seen[4] == Event("BOOKMARK", None, seen[3].resource_version)
        await until(lambda: server.watching == 0)


async def test_a_watch_ends_when_its_time_is_over(server: ApiServer) -> None:
    async with api_of(server) as api:
        _, version = await api.list(PODS, NAMESPACE, Pod)
        async for _ in api.watch(PODS, NAMESPACE, Pod, resource_version=version, timeout_s=1):
            pass
    assert server.asked("watch", "pods")


@pytest.mark.parametrize("as_status", [False, True])
async def test_a_version_that_is_forgotten(server: ApiServer, as_status: bool) -> None:
    async with api_of(server) as api:
        _, version = await api.list(PODS, NAMESPACE, Pod)
        server.apply([pod("a"), pod("b")])
        server.compact(as_status=as_status)
        with pytest.raises(Gone):
            async for _ in api.watch(PODS, NAMESPACE, Pod, resource_version=version, timeout_s=60):
                pass


async def test_a_watch_that_is_torn_is_unreachable(server: ApiServer) -> None:
    async with api_of(server) as api:
        _, version = await api.list(PODS, NAMESPACE, Pod)
        events = api.watch(PODS, NAMESPACE, Pod, resource_version=version, timeout_s=60)
        await anext(events)
        server.drop_watches(torn=True)
        with pytest.raises(Unreachable):
            await anext(events)


async def test_closing_ends_open_watches(server: ApiServer) -> None:
    async with api_of(server) as api:
        _, version = await api.list(PODS, NAMESPACE, Pod)

        async def follow() -> None:
            async for _ in api.watch(PODS, NAMESPACE, Pod, resource_version=version, timeout_s=60):
                pass

        task = asyncio.create_task(follow())
        await until(lambda: server.watching == 1)
        await api.close()
        with pytest.raises(Unreachable):
            await asyncio.wait_for(task, 10)
        with pytest.raises(Unreachable, match="was closed"):
            await api.read(PODS, NAMESPACE, "a", Pod)


async def test_create_and_replace(server: ApiServer) -> None:
    async with api_of(server) as api:
        made = await api.create(LEASES, NAMESPACE, lease("l", "me"), Lease)
        assert made.spec["holderIdentity"] == "me"
        with pytest.raises(Conflict):
            await api.create(LEASES, NAMESPACE, lease("l", "you"), Lease)
        version = made.metadata.resource_version
        newer = await api.replace(LEASES, NAMESPACE, "l", lease("l", "you", resourceVersion=version), Lease)
        assert newer.spec["holderIdentity"] == "you"
        with pytest.raises(Conflict, match="read the object again") as caught:
            await api.replace(LEASES, NAMESPACE, "l", lease("l", "he", resourceVersion=version), Lease)
        assert (caught.value.status, caught.value.verb, caught.value.resource) == (409, "update", LEASES)


async def test_what_is_served(server: ApiServer) -> None:
    async with api_of(server) as api:
        assert "inferencepools" in await api.served(POOLS.group, POOLS.version)
        found = await api.served("", "v1")
        assert "pods" in found
        assert not [name for name in found if "/" in name]
        server.rules.uninstall(POOLS.group)
        assert await api.served(POOLS.group, POOLS.version) == frozenset()
        assert await api.served("example.com", "v7") == frozenset()


async def refused(call: Callable[[Api], Any], api: Api) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call(api)
    assert "\n" not in str(caught.value)
    return caught.value


async def test_what_is_forbidden_names_the_rule_that_is_missing(server: ApiServer) -> None:
    server.rules.allow_only([])
    async with api_of(server) as api:
        error = await refused(lambda api: api.list(PODS, NAMESPACE, Pod), api)
        assert isinstance(error, Forbidden)
        assert f'grant verb "list" on "pods" in namespace "{NAMESPACE}" to our service account' in str(error)
        error = await refused(lambda api: api.list(OBJECTIVES, None, Pod), api)
        assert 'grant verb "list" on "inferenceobjectives.llm-d.ai" to our service account by a ClusterRole' in str(
            error
        )
        with pytest.raises(Forbidden, match='grant verb "watch" on "pods"'):
            async for _ in api.watch(PODS, NAMESPACE, Pod, resource_version="1", timeout_s=5):
                pass


async def test_what_is_missing_names_what_to_install_or_create(server: ApiServer) -> None:
    async with api_of(server) as api:
        error = await refused(lambda api: api.read(POOLS, NAMESPACE, "none", Pod), api)
        assert isinstance(error, Missing)
        assert str(error).endswith("create it, or name one that is there")
        server.rules.uninstall(POOLS.group, POOLS.version, POOLS.plural)
        for call in (
            lambda api: api.read(POOLS, NAMESPACE, "none", Pod),
            lambda api: api.list(POOLS, NAMESPACE, Pod),
        ):
            error = await refused(call, api)
            assert isinstance(error, Missing)
            assert "install the CRD inferencepools.inference.networking.k8s.io with version v1" in str(error)


async def test_patience(server: ApiServer) -> None:
    async with api_of(server) as api:
        server.throttle(1, retry_after=7)
        error = await refused(lambda api: api.list(PODS, NAMESPACE, Pod), api)
        assert isinstance(error, TooMany)
        assert error.retry_after_s == 7


async def test_a_token_that_is_renewed(server: ApiServer) -> None:
    async with api_of(server) as api:
        await api.list(PODS, NAMESPACE, Pod)
        server.rotate_token()
        # The file is read at once, and the request sent again.
        await api.list(PODS, NAMESPACE, Pod)
        assert [request.code for request in server.asked("list", "pods")] == [200, 401, 200]


async def test_a_token_that_is_refused(server: ApiServer) -> None:
    secret = "aTokenThatNobodyMaySee"
    tls = Tls(authority=server.ca_file)
    access = Access(server.url, origin="a test", tls=tls, credentials=Fixed(Credential(secret)))
    assert secret not in repr(access) + repr(Credential(secret))
    async with api_of(server, access) as api:
        error = await refused(lambda api: api.list(PODS, NAMESPACE, Pod), api)
    assert isinstance(error, Unauthorized)
    assert "does not accept a test" in str(error)
    assert secret not in str(error)
    assert len(server.asked("list", "pods")) <= 1


async def test_a_server_nobody_trusts(server: ApiServer, tmp_path: Path) -> None:
    async with api_of(server, Access(server.url, tls=Tls())) as api:
        error = await refused(lambda api: api.list(PODS, NAMESPACE, Pod), api)
    assert isinstance(error, Unreachable)
    assert "its certificate is not trusted" in str(error)
    async with api_of(
        server, Access(server.url, tls=Tls(authority=server.ca_file, server_name="other.example"))
    ) as api:
        error = await refused(lambda api: api.list(PODS, NAMESPACE, Pod), api)
    assert "other.example" in str(error)
    async with api_of(server, Access(server.url, tls=Tls(insecure=True))) as api:
        assert isinstance(await refused(lambda api: api.list(PODS, NAMESPACE, Pod), api), (Unauthorized, Forbidden))


async def test_a_server_that_is_away(server: ApiServer) -> None:
    async with api_of(server) as api:
        await api.list(PODS, NAMESPACE, Pod)
        server.away()
        lines = {str(await refused(lambda api: api.list(PODS, NAMESPACE, Pod), api)) for _ in range(3)}
        # One matter, one line, so that it is told once.
        assert len(lines) == 1
        assert f"no answer from {server.url}" in lines.pop()
        server.back()
        await api.list(PODS, NAMESPACE, Pod)


async def test_a_server_that_never_answers() -> None:
    ended = asyncio.Semaphore(0)

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.release()

    listener = await asyncio.start_server(nothing, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        api = Api(Access(f"http://127.0.0.1:{port}"), timeout_s=0.05)
        for call in (
            lambda api: api.read(PODS, "x", "a", Pod),
            lambda api: anext(api.watch(PODS, "x", Pod, resource_version="1", timeout_s=60)),
        ):
            error = await refused(call, api)
            assert isinstance(error, Unreachable)
            assert "it took too long" in str(error)
            await ended.acquire()
        await api.close()


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", ApiError, "cannot be read"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", Unreachable, "no answer"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n", ApiError, "302"),
        (b"HTTP/1.1 502 Bad Gateway\r\nRetry-After: soon\r\nContent-Length: 3\r\n\r\nbad", ApiError, "502 bad"),
        (b"SSH-2.0-OpenSSH_9\r\n", Unreachable, "no answer"),
        (b"", Unreachable, "no answer"),
    ],
)
async def test_answers_of_something_else(answer: bytes, kind: type[ApiError], text: str) -> None:
    ended = asyncio.Event()

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(say, "127.0.0.1", 0) as listener:
        api = Api(Access(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"), timeout_s=5)
        error = await refused(lambda api: api.read(PODS, "x", "a", Pod), api)
        await api.close()
        await ended.wait()
    assert type(error) is kind
    assert text in str(error)


async def test_names_cannot_leave_their_path(server: ApiServer) -> None:
    async with api_of(server) as api:
        await refused(lambda api: api.read(PODS, NAMESPACE, "a?watch=1&x=/../b", Pod), api)
    assert not server.asked("watch")


@pytest.mark.parametrize(
    ("auth", "inline"), [("token", True), ("token-file", False), ("certificate", False), ("certificate", True)]
)
async def test_by_kubeconfig(server: ApiServer, tmp_path: Path, auth: Any, inline: bool) -> None:
    path = server.kubeconfig(tmp_path / "config", auth=auth, inline=inline)
    access = find_access({}, path)
    assert access is not None
    assert access.namespace == NAMESPACE
    server.apply(pod("a"))
    async with api_of(server, access) as api:
        found, _ = await api.list(PODS, NAMESPACE, Pod)
    assert [item.metadata.name for item in found] == ["a"]
    assert server.asked("list", "pods")[-1].user == server.user.name


async def test_by_ipv6() -> None:
    with ApiServer(host="::1") as server:
        async with api_of(server) as api:
            assert await api.list(PODS, NAMESPACE, Pod) == ([], str(server.resource_version))


async def test_unknown_kinds(server: ApiServer) -> None:
    async with api_of(server) as api:
        error = await refused(lambda api: api.list(Resource("example.com", "v1", "things", "Thing"), None, Pod), api)
    assert "install the CRD things.example.com with version v1" in str(error)


def test_without_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epp.kube.sending.find_spec", lambda name: None)
    with pytest.raises(StartError, match=r"pip install '\.\[kubernetes\]'` in the source folder"):
        Api(Access("https://s"))


def test_aiohttp_is_loaded_by_the_first_request_alone() -> None:
    program = (
        "import sys, epp.kube.api, epp.kube.reflector, epp.kube.access; "
        "sys.exit(bool({'aiohttp', 'yarl', 'yaml'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
