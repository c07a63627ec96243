# SPDX-License-Identifier: Apache-2.0
"""The reflector against a server of a few lines: what is told, when, and that it always ends in the server's state."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.kube.errors import ApiError, Forbidden, Gone, Missing, TooMany, Unreachable
from epp.kube.objects import Pod
from epp.kube.watch import Event
from tests.kube.fakes import pod, running


async def test_list_then_watch() -> None:
    async with running("a", "b") as run:
        await run.time.run(1)
        assert [sorted(store) for _, store in run.seen] == [["x/a", "x/b"]]
        assert run.told == [None]
        run.api.put("c")
        run.api.delete("a")
        await run.time.run(1)
        assert run.names == ["x/b", "x/c"]
        assert run.api.lists == 1


async def test_the_first_list_is_told_though_it_is_empty() -> None:
    async with running() as run:
        await run.time.run(1)
        assert [dict(store) for _, store in run.seen] == [{}]


async def test_changes_are_told_together_at_most_every_20_ms() -> None:
    async with running("a") as run:
        await run.time.run(1)
        for number in range(100):
            run.api.put(f"p{number}")
            await run.time.run(0.001)
        await run.time.run(1)
        times = [at_s for at_s, _ in run.seen]
        assert 5 <= len(times) - 1 <= 7
        assert all(later - earlier >= 0.0199 for earlier, later in itertools.pairwise(times))
        assert len(run.names) == 101


async def test_a_single_change_is_told_at_once() -> None:
    async with running("a") as run:
        await run.time.run(1)
        run.api.put("b")
        await run.time.settle()
        assert run.names == ["x/a", "x/b"]


async def test_what_was_told_does_not_change_afterwards() -> None:
    async with running("a") as run:
        await run.time.run(1)
        first = run.seen[-1][1]
        run.api.put("b")
        await run.time.run(1)
        assert list(first) == ["x/a"]
        with pytest.raises(TypeError):
            first["x/z"] = pod("z", 1)  # type: ignore[index]


async def test_a_heartbeat_is_no_change() -> None:
    async with running("a") as run:
        await run.time.run(1)
        run.api.put("a")
        await run.time.run(1)
        assert len(run.seen) == 1
        run.api.put("a", phase="Running")
        await run.time.run(1)
        assert len(run.seen) == 2


async def test_a_new_uid_is_a_change() -> None:
    async with running("a") as run:
        await run.time.run(1)
        fresh = pod("a", 9)
        fresh = msgspec.structs.replace(fresh, metadata=msgspec.structs.replace(fresh.metadata, uid="other"))
        run.api.log.append(Event("MODIFIED", fresh, "9", "x/a"))
        run.api.more.set()
        await run.time.run(1)
        assert len(run.seen) == 2


async def test_a_bookmark_moves_the_place_to_resume_from() -> None:
    async with running("a") as run:
        await run.time.run(1)
        run.api.version = 50
        run.api.bookmark()
        await run.time.run(1)
        run.api.end(None)
        await run.time.run(1)
        assert run.api.watches == ["2", "50"]
        assert len(run.seen) == 1
        assert run.api.lists == 1


async def test_gone_lists_anew_and_never_empties_the_store() -> None:
    async with running("a", "b") as run:
        await run.time.run(1)
        run.api.put("c")
        await run.time.run(1)
        run.api.list_errors = [Unreachable("away")]
        run.api.log.clear()
        run.api.delete("a")
        run.api.log.clear()
        run.api.compact()
        await run.time.run(5)
        assert [sorted(store) for _, store in run.seen] == [["x/a", "x/b"], ["x/a", "x/b", "x/c"], ["x/b", "x/c"]]
        assert run.api.lists == 3


async def test_gone_again_and_again_is_no_hot_loop() -> None:
    async with running("a") as run:
        run.api.watch_errors = [Gone("410")] * 1000
        await run.time.run(60)
        assert 5 <= run.api.lists <= 10
        assert len(run.seen) == 1


async def test_a_server_that_is_away_for_an_hour_is_asked_ever_more_rarely() -> None:
    async with running("a") as run:
        await run.time.run(1)
        run.api.watch_errors = [Unreachable("away")] * 10_000
        run.api.end(Unreachable("away"))
        await run.time.run(3600)
        assert 3600 / 37.5 <= len(run.api.watches) <= 3600 / 22.5 + 10
        assert len(run.seen) == 1
        assert run.told[0] is None
        assert all(isinstance(error, Unreachable) for error in run.told[1:])
        run.api.watch_errors.clear()
        run.api.put("b")
        await run.time.run(60)
        assert run.names == ["x/a", "x/b"]
        assert run.told[-1] is None
        assert run.api.lists == 1


async def test_a_good_watch_that_breaks_off_is_resumed_in_silence() -> None:
    async with running("a") as run:
        await run.time.run(100)
        run.api.end(Unreachable("connection reset"))
        await run.time.run(1)
        assert run.told == [None]
        assert run.api.watches == ["2", "2"]


async def test_a_watch_that_always_breaks_off_is_told() -> None:
    async with running("a") as run:
        for _ in range(40):
            await run.time.run(0.5)
            run.api.end(Unreachable("connection reset"))
        assert len(run.api.watches) < 12
        lines = [str(error) for error in run.told if error is not None and not isinstance(error, Unreachable)]
        line = (
            'watch pods in namespace "x": the connection is made, and breaks off soon after, again and again; check what '
            "stands between us and the API server, and for how long it lets a connection be silent"
        )
        assert set(lines) == {line}
        assert run.told[-1] is not None, "that it is made again says nothing"
        run.api.put("b")
        await run.time.run(60)
        run.api.put("c")
        await run.time.run(60)
        assert run.told[-1] is None


async def test_a_watch_that_is_forbidden_leaves_lists() -> None:
    async with running("a") as run:
        run.api.watch_errors = [Forbidden("no", status=403)] * 1000
        await run.time.run(60)
        run.api.put("b")
        await run.time.run(60)
        assert run.names == ["x/a", "x/b"]
        # Never "well again" in between: the log would say the same two lines for ever.
        assert {type(error) for error in run.told} == {Forbidden}
        run.api.watch_errors.clear()
        await run.time.run(60)
        assert run.told[-1] is None


async def test_a_kind_that_is_installed_later() -> None:
    async with running("a") as run:
        run.api.list_errors = [Missing("no CRD", status=404)] * 5
        await run.time.run(60)
        assert [type(error) for error in run.told] == [Missing] * 5 + [type(None)]
        assert run.names == ["x/a"]


async def test_retry_after_is_honoured() -> None:
    async with running("a") as run:
        run.api.list_errors = [
            TooMany("busy", status=429, retry_after_s=20.0),
            ApiError("", status=503, retry_after_s=10),
        ]
        await run.time.run(19.9)
        assert run.api.lists == 1
        await run.time.run(6)
        assert run.api.lists == 2
        await run.time.run(3)
        assert run.api.lists == 2
        await run.time.run(3)
        assert run.api.lists == 3
        assert run.told[-1] is None


async def test_a_server_that_ends_every_watch_at_once_is_spared() -> None:
    async with running("a") as run:
        for _ in range(600):
            run.api.end(None)
            await run.time.run(0.1)
        assert len(run.api.watches) <= 10


async def test_an_idle_watch_that_ends_as_agreed_is_resumed_at_once() -> None:
    async with running("a") as run:
        for _ in range(5):
            await run.time.run(300)
            run.api.end(None)
            await run.time.settle()
        assert len(run.api.watches) == 6
        assert run.told == [None]


async def test_malformed_objects_keep_their_last_state_and_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with running("a", "b", "never") as run:
        run.api.unreadable = {"x/never": "bad"}
        await run.time.run(1)
        assert run.names == ["x/a", "x/b"]
        run.api.unreadable = {"x/never": "bad", "x/a": "worse"}
        for _ in range(2):
            run.api.compact()
            await run.time.run(5)
        assert run.names == ["x/a", "x/b"]
        assert dict(run.reflector.malformed) == {"x/never": "bad", "x/a": "worse"}
        run.api.unreadable = {}
        run.api.put("a")
        await run.time.run(1)
        run.api.delete("never")
        await run.time.run(1)
        assert dict(run.reflector.malformed) == {}
        assert run.told_malformed == [("x/never", "bad"), ("x/a", "worse"), ("x/a", None), ("x/never", None)]
        assert len(caplog.messages) == 2


async def test_who_is_told_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    async with running("a") as run:
        calls = []

        def changed(store: Mapping[str, Pod]) -> None:
            calls.append(sorted(store))
            raise ValueError("no")

        run.reflector._changed = changed
        await run.time.run(1)
        run.api.put("b")
        await run.time.run(1)
        assert calls == [["x/a"], ["x/a", "x/b"]]
        assert len(caplog.records) == 2


async def test_a_fault_of_ours_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with running("a") as run:
        run.api.list_errors = [KeyError("what")]
        await run.time.run(5)
        assert run.names == ["x/a"]
        assert [type(error) for error in run.told] == [ApiError, type(None)]
        assert len(caplog.records) == 1


_STEP = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abcd"), st.sampled_from(["", "Running"])),
    st.tuples(st.just("delete"), st.sampled_from("abcd"), st.just("")),
    st.tuples(
        st.sampled_from(["bookmark", "compact", "end", "drop", "busy", "away", "forbid", "wait", "settle"]),
        st.just(""),
        st.just(""),
    ),
)


@given(st.lists(_STEP, max_size=30), st.integers(0, 3))
def test_whatever_happens_it_ends_in_the_servers_state(steps: list[tuple[str, str, str]], first: int) -> None:
    asyncio.run(_storm(steps, "abcd"[:first]))


async def _storm(steps: list[tuple[str, str, str]], first: str) -> None:
    async with running(*first) as run:
        api = run.api
        history = {"x/" + name: [0] for name in "abcd"}
        for step, name, phase in steps:
            if step == "put":
                api.put(name, phase)
            elif step == "delete":
                api.delete(name)
            elif step in ("compact", "bookmark"):
                getattr(api, step)()
            elif step == "end":
                api.end(None)
            elif step == "drop":
                api.end(Unreachable("reset"))
            elif step == "busy":
                api.list_errors.append(TooMany("", status=429, retry_after_s=3.0))
            elif step == "away":
                api.watch_errors.append(Unreachable("away"))
                api.list_errors.append(Unreachable("away"))
            elif step == "forbid":
                api.watch_errors.append(Forbidden("no", status=403))
            elif step == "wait":
                await run.time.run(2)
            else:
                await run.time.settle()
        await run.time.run(600)
        assert {key: item.status for key, item in run.seen[-1][1].items()} == {
            key: item.status for key, item in api.pods.items()
        }
        for _, store in run.seen:
            for key, item in store.items():
                version = int(item.metadata.resource_version)
                assert version >= history[key][-1], "the store went back in time"
                history[key].append(version)
        assert run.told[-1] is None
