# SPDX-License-Identifier: Apache-2.0
"""Faults of the simulated pod, over HTTP: each kind shows what it says, ends when it should, and the books add up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.local.sim.command import DEFAULT_MODEL
from epp.local.sim.engine import EngineConfig
from epp.local.sim.faults import KINDS, Error, Faults, MetricsSlow, Slow, lie, read_fault, read_faults
from epp.local.sim.generation import PodConfig
from epp.local.sim.site import Site

BODY: dict[str, Any] = {"model": DEFAULT_MODEL, "prompt": "a prompt of some tokens", "max_tokens": 8}
RUNNING = "vllm:num_requests_running"


class Client:
    """Talks to one pod."""

    def __init__(self, site: Site, session: aiohttp.ClientSession) -> None:
        self.site = site
        self._session = session

    async def ask(self, timeout_s: float = 10.0, **more: Any) -> int:
        """One request, read to its end; the status."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with self._session.post(
            self.site.url + "/v1/completions", json={**BODY, **more}, timeout=timeout
        ) as response:
            await response.read()
            return response.status

    async def chunks(self, timeout_s: float = 10.0) -> tuple[int, type[BaseException] | None]:
        """Tokens of a streamed answer that came, and how it ended if not well."""
        data = b""
        try:
            async with self._session.post(
                self.site.url + "/v1/completions",
                json={**BODY, "stream": True},
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                async for piece in response.content.iter_any():
                    data += piece
        except (aiohttp.ClientError, TimeoutError) as error:
            return data.count(b"data: {"), type(error)
        return data.count(b"data: {"), None

    async def get(self, path: str, timeout_s: float = 10.0) -> tuple[int, bytes]:
        async with self._session.get(
            self.site.url + path, timeout=aiohttp.ClientTimeout(total=timeout_s)
        ) as response:  # fmt: skip
            return response.status, await response.read()

    async def admin(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        async with self._session.request(method, self.site.url + path, data=data) as response:
            return response.status, orjson.loads(await response.read())

    async def put(self, **faults: Any) -> Any:
        status, told = await self.admin("PUT", "/sim/faults", faults)
        assert status == 200, told
        return told

    async def requests(self) -> dict[str, int]:
        """The books of all models; those that are still being closed are waited for."""
        async with asyncio.timeout(5):
            while True:
                total: dict[str, int] = (await self.admin("GET", "/sim/state"))[1]["requests"]
                if not total["open"]:
                    return total


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def client(**options: Any) -> AsyncIterator[Client]:
    config = PodConfig(**{"name": "pod-a", "models": (DEFAULT_MODEL,), "engine": EngineConfig(speed=1000.0), **options})
    async with Site(config, end_process=lambda code: None) as site, aiohttp.ClientSession() as session:
        yield Client(site, session)


async def test_errors_are_answered_as_often_as_asked_and_booked() -> None:
    async with client() as pod:
        assert await pod.put(error={"status": 503, "count": 2}) == {
            "error": {"for_s": None, "rate": 1.0, "count": 2, "status": 503, "left": 2}
        }
        assert [await pod.ask() for _ in range(4)] == [503, 503, 200, 200]
        assert (await pod.admin("GET", "/sim/faults"))[1] == {}
        total = await pod.requests()
        assert (total["begun"], total["faulted"], total["answered"]) == (4, 2, 2)
        assert (await pod.admin("GET", "/sim/state"))[1]["faults_struck"] == {"error": 2}


async def test_a_hung_request_is_never_answered_and_ends_with_its_client() -> None:
    async with client() as pod:
        await pod.put(hang={"count": 1})
        with pytest.raises(TimeoutError):
            await pod.ask(timeout_s=0.05)
        assert await pod.ask() == 200
        total = await pod.requests()
        assert (total["aborted"], total["answered"]) == (1, 1)


async def test_everything_can_hang_but_the_admin_path() -> None:
    async with client() as pod:
        await pod.put(hang={"everything": True})
        for path in ("/metrics", "/health", "/v1/models"):
            with pytest.raises(TimeoutError):
                await pod.get(path, timeout_s=0.03)
        assert (await pod.admin("DELETE", "/sim/faults/hang"))[1] == {}
        assert (await pod.get("/health"))[0] == 200


@pytest.mark.parametrize("after", [1, 3])
async def test_a_stream_stalls_after_its_tokens(after: int) -> None:
    async with client() as pod:
        await pod.put(stall={"after_chunks": after, "count": 1})
        assert await pod.chunks(timeout_s=0.2) == (after, TimeoutError)
        assert await pod.chunks() == (8, None)
        assert (await pod.requests())["aborted"] == 1


@pytest.mark.parametrize("after", [1, 3])
async def test_a_stream_is_reset_after_its_tokens(after: int) -> None:
    async with client() as pod:
        await pod.put(reset={"after_chunks": after, "count": 1})
        tokens, error = await pod.chunks()
        assert tokens <= after
        assert error is not None
        assert issubclass(error, aiohttp.ClientError)
        assert await pod.chunks() == (8, None)
        total = await pod.requests()
        assert (total["faulted"], total["answered"], total["output_tokens"]) == (1, 1, 8)
        assert total["lost_output_tokens"] >= after


async def test_a_whole_answer_is_reset_in_its_place() -> None:
    async with client() as pod:
        await pod.put(reset={"count": 1})
        with pytest.raises(aiohttp.ClientError):
            await pod.ask()
        assert await pod.ask() == 200
        assert (await pod.requests())["faulted"] == 1


async def test_a_pod_that_refuses_comes_back_at_its_address() -> None:
    async with client() as pod:
        assert await pod.ask() == 200
        port = pod.site.port
        async with aiohttp.ClientSession() as other:
            hanging = asyncio.ensure_future(other.get(pod.site.url + "/metrics"))
            await pod.put(metrics_slow={"delay_s": 60}, refuse={"for_s": 0.15})
            with pytest.raises(aiohttp.ClientError):
                await hanging
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await pod.ask() == 200
                    break
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.01)
        assert pod.site.port == port


def test_connections_are_reset_on_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def idle_connection_of_a_pod_that_refuses() -> None:
        async with client() as pod:
            reader, writer = await asyncio.open_connection("127.0.0.1", pod.site.port)
            writer.write(b"GET /health HTTP/1.1\r\nhost: pod\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await pod.put(refuse={"for_s": 60})
            try:
                with pytest.raises(ConnectionResetError):
                    await asyncio.wait_for(reader.read(), 5)
            finally:
                writer.close()

    uvloop.run(idle_connection_of_a_pod_that_refuses())


async def test_a_pod_that_only_closes_its_listener_serves_those_who_are_connected() -> None:
    async with client() as pod:
        reader, writer = await asyncio.open_connection("127.0.0.1", pod.site.port)
        for _ in range(2):
            writer.write(b"GET /health HTTP/1.1\r\nhost: pod\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            if pod.site.pod.faults.struck == {}:
                await pod.put(refuse={"for_s": 60, "drop": False})
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", pod.site.port)
        assert pod.site.pod.faults.struck == {"refuse": 1}
        writer.close()


async def test_slow_stretches_the_engine_until_it_is_over() -> None:
    async with client() as pod:
        assert (await pod.put(slow={"factor": 50, "for_s": 0.05}))["slow"]["factor"] == 50
        assert pod.site.pod.engine.slowdown == 50
        await until(lambda: pod.site.pod.engine.slowdown == 1.0)
        await pod.put(slow={"factor": 50})
        await pod.put()
        assert pod.site.pod.engine.slowdown == 1.0


async def test_the_metrics_page_lies_stands_still_breaks_and_is_well_again() -> None:
    async with client() as pod:
        good = (await pod.get("/metrics"))[1]
        await pod.put(metrics_error={"status": 500})
        assert (await pod.get("/metrics"))[0] == 500
        await pod.put(metrics_garbage={})
        garbage = (await pod.get("/metrics"))[1]
        assert len(garbage) == pytest.approx(len(good), rel=0.01)
        assert RUNNING.encode() not in garbage
        await pod.put(metrics_truncated={"keep": 0.25})
        with pytest.raises(aiohttp.ClientPayloadError):
            await pod.get("/metrics")
        await pod.put(metrics_lie={"values": {RUNNING: 99}})
        assert f'{RUNNING}{{engine="0",model_name="{DEFAULT_MODEL}"}} 99.0\n'.encode() in (await pod.get("/metrics"))[1]
        await pod.put(metrics_stale={})
        stale = (await pod.get("/metrics"))[1]
        await pod.ask()
        assert (await pod.get("/metrics"))[1] == stale
        await pod.put(metrics_slow={"delay_s": 60})
        with pytest.raises(TimeoutError):
            await pod.get("/metrics", timeout_s=0.03)
        await pod.admin("DELETE", "/sim/faults")
        assert b"vllm:generation_tokens_total{" in (await pod.get("/metrics"))[1] != stale


async def test_the_process_ends_with_the_code() -> None:
    codes: list[int] = []
    config = PodConfig(name="", models=(DEFAULT_MODEL,))
    async with Site(config, end_process=codes.append) as site, aiohttp.ClientSession() as session:
        assert await Client(site, session).put(exit={"code": 7}) == {}
        await until(lambda: bool(codes))
    assert codes == [7]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("PUT", "/sim/faults", b"[", 400, "an object of fault kinds is wanted"),
        ("PUT", "/sim/faults", {"nap": {}}, 400, "there is no fault 'nap'; known: error, hang"),
        ("PUT", "/sim/faults/error", {"rate": 2}, 400, "error: Expected `float` <= 1.0 - at `$.rate`"),
        ("PUT", "/sim/faults/error", {"rat": 1}, 400, "unknown field `rat`"),
        ("PUT", "/sim/faults/refuse", {}, 400, "missing required field `for_s`"),
        ("PUT", "/sim/faults/metrics_lie", {"values": {"nothing": 1}}, 400, "no sample of this page is named nothing"),
        ("PUT", "/sim/faults/nap", {}, 404, "nothing is at /sim/faults/nap"),
        ("POST", "/sim/faults", {}, 405, "use GET, PUT or DELETE"),
        ("PUT", "/sim/state", {}, 405, "only read"),
        ("GET", "/sim/", None, 404, "nothing is at /sim; known: /sim/state"),
    ],
)
async def test_what_cannot_be_set_is_one_clear_line(
    method: str, path: str, body: Any, status: int, words: str
) -> None:  # fmt: skip
    async with client() as pod:
        await pod.put(slow={"factor": 2})
        got, told = await pod.admin(method, path, body)
        assert got == status
        assert words in told["error"]
        assert "\n" not in told["error"]
        assert list((await pod.admin("GET", "/sim/faults"))[1]) == ["slow"]


async def test_one_kind_is_added_or_cleared_without_the_others() -> None:
    async with client() as pod:
        await pod.put(slow={"factor": 2}, error={"rate": 0})
        assert list((await pod.admin("PUT", "/sim/faults/hang", b""))[1]) == ["slow", "error", "hang"]
        assert list((await pod.admin("DELETE", "/sim/faults/error"))[1]) == ["slow", "hang"]
        assert list(await pod.put(stall={})) == ["stall"]


async def test_the_books_add_up() -> None:
    async with client(loras=("adapter",)) as pod:
        assert await pod.ask() == 200
        assert await pod.ask(model="adapter") == 200
        assert await pod.chunks() == (8, None)
        assert await pod.ask(model="nobody") == 404
        assert await pod.ask(max_tokens=0) == 400
        total = await pod.requests()
        state = (await pod.admin("GET", "/sim/state"))[1]
    assert total == {
        "begun": 5,
        "answered": 3,
        "rejected": 2,
        "faulted": 0,
        "aborted": 0,
        "open": 0,
        "prompt_tokens": 18,
        "cached_tokens": 0,
        "output_tokens": 24,
        "lost_output_tokens": 0,
    }
    assert {name: account["answered"] for name, account in state["models"].items()} == {
        DEFAULT_MODEL: 2,
        "adapter": 1,
        "": 0,
    }
    assert state["engine"]["blocks"]["held"] == 0


async def test_without_admin_there_is_nothing_there() -> None:
    config = PodConfig(name="", models=(DEFAULT_MODEL,))
    async with Site(config, admin=False) as site, aiohttp.ClientSession() as session:
        assert (await Client(site, session).get("/sim/state"))[0] == 404


@given(st.lists(st.sampled_from(["tick", "strike", "put", "clear"]), max_size=40), st.integers(0, 9))
def test_a_fault_strikes_no_more_than_its_count_and_not_after_its_time(moves: list[str], seed: int) -> None:
    now_s = 0.0
    faults = Faults(lambda: now_s, random.Random(seed), lambda: None)
    left, until_s = 0, 0.0
    for move in moves:
        if move == "tick":
            now_s += 1.0
        elif move == "put":
            faults.put(Error(for_s=3.0, count=2))
            left, until_s = 2, now_s + 3.0
        elif move == "clear":
            faults.clear("error")
            left = 0
        else:
            there = left > 0 and now_s < until_s
            assert (faults.strike(Error) is not None) == there
            left -= there


def test_a_rate_is_a_share_and_the_same_for_the_same_seed() -> None:
    runs = []
    for _ in range(2):
        faults = Faults(lambda: 0.0, random.Random(5), lambda: None)
        faults.put(MetricsSlow(delay_s=1, rate=0.25))
        runs.append([faults.strike(MetricsSlow) is not None for _ in range(2000)])
    assert runs[0] == runs[1]
    assert 420 < sum(runs[0]) < 580


def test_every_kind_can_be_read() -> None:
    needed = {"refuse": b'{"for_s":1}', "slow": b'{"factor":2}', "metrics_slow": b'{"delay_s":1}'}
    needed["metrics_lie"] = b'{"values":{}}'
    for kind, type_ in KINDS.items():
        assert type(read_fault(kind, needed.get(kind, b""))) is type_
    assert read_faults(b'{"slow":{"factor":2},"error":{}}') == [Slow(factor=2), Error()]


def test_a_lie_changes_all_series_of_a_name_and_nothing_else() -> None:
    page = b'# HELP a b\na{x="1 2"} 1.0\na 2.0\na_total 3.0\n'
    assert lie(page, {"a": 7}) == b'# HELP a b\na{x="1 2"} 7.0\na 7.0\na_total 3.0\n'
