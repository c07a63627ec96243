# SPDX-License-Identifier: Apache-2.0
"""One pool followed against the stand-in API server: groups, refusals, outages, and every kind of change."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from epp.discovery.kubernetes.poolspec import selector_pool
from epp.discovery.kubernetes.source import PoolTarget
from tests.apiserver.roles import KSERVE_ROLES
from tests.apiserver.server import ApiServer
from tests.discovery.kubernetes.support import (
    API,
    GIE,
    GIE_X,
    LLM_D,
    NS,
    Recorder,
    custom,
    following,
    pod_body,
    pool_v1,
    pool_x,
    until,
)


async def test_pods_of_a_pool_come_change_and_go() -> None:
    with ApiServer() as server:
        server.apply([pool_v1(), pod_body("a"), pod_body("b", ready=False), pod_body("c", labels={"app": "other"})])
        async with following(server) as seen:
            await until(lambda: seen.names == ["a-rank-0"])
            server.patch("pods", NS, "b", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
            await until(lambda: seen.names == ["a-rank-0", "b-rank-0"])
            before = seen.snapshots[-1][0].incarnation
            server.patch("pods", NS, "a", {"status": {"containerStatuses": [{"name": "main", "restartCount": 1}]}})
            await until(lambda: seen.snapshots[-1][0].incarnation != before)
            server.delete("pods", NS, "a", grace=True)
            await until(lambda: seen.names == ["b-rank-0"])
            assert seen.pools[0].picker_port == 9002
            assert not seen.wrong


async def test_a_pod_that_is_not_ready_for_a_moment_stays_and_is_told() -> None:
    with ApiServer() as server:
        server.apply([pool_v1(), pod_body("a"), pod_body("b", ready=False)])
        async with following(server) as seen:
            await until(lambda: seen.names == ["a-rank-0"])
            first = seen.snapshots[-1][0]
            server.patch("pods", NS, "a", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
            await until(lambda: "endpoints" in seen.wrong)
            assert seen.wrong["endpoints"].endswith("matches 2 pods, none of them is Ready")
            assert seen.snapshots[-1] == (replace(first, ready=False),)
            server.patch("pods", NS, "a", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
            await until(lambda: not seen.wrong)
            assert seen.snapshots[-1] == (first,)
            assert not seen.gones


async def test_a_listener_that_fails_does_not_end_the_source(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Recorder, pool: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(Recorder, "pool", broken)
    with ApiServer() as server:
        server.apply([pool_v1(), pod_body("a")])
        async with following(server) as seen:
            await until(lambda: seen.names == ["a-rank-0"])
    assert f"pool {NS}/x: what follows from a change failed" in caplog.text


async def test_what_changes_no_endpoint_is_not_published() -> None:
    with ApiServer() as server:
        server.apply([pool_v1(), pod_body("a")])
        async with following(server) as seen:
            await until(lambda: seen.names == ["a-rank-0"])
            for at in range(20):
                server.patch("pods", NS, "a", {"metadata": {"annotations": {"beat": str(at)}}})
            server.apply(pod_body("b"))
            await until(lambda: seen.names == ["a-rank-0", "b-rank-0"])
            assert len(seen.snapshots) == 2


@pytest.mark.parametrize("refusal", ["uninstalled", "forbidden", "no such object"])
async def test_without_the_first_group_the_second_one_serves_and_nothing_is_degraded(refusal: str) -> None:
    with ApiServer() as server:
        if refusal == "uninstalled":
            server.rules.uninstall(GIE)
        elif refusal == "forbidden":
            server.rules.allow_only(
                [
                    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
                    {
                        "apiGroups": [GIE_X],
                        "resources": ["inferencepools", "inferencemodels"],
                        "verbs": ["get", "list", "watch"],
                    },
                ]
            )
            for plural in ("inferenceobjectives", "inferencemodelrewrites"):
                server.rules.uninstall(GIE_X, None, plural)
                server.rules.uninstall("llm-d.ai", None, plural)
        server.apply([pool_x(port=8001), pod_body("a")])
        async with following(server) as seen:
            await until(lambda: seen.names == ["a"])
            assert seen.pools[-1].group == GIE_X
            assert seen.snapshots[-1][0].port == 8001
            assert not seen.history


async def test_a_pool_that_moves_to_the_first_group_changes_the_names() -> None:
    with ApiServer() as server:
        server.apply([pool_x(), pod_body("a")])
        async with following(server) as seen:
            await until(lambda: seen.names == ["a"])
            server.apply(pool_v1())
            await until(lambda: seen.names == ["a-rank-0"])
            assert () not in seen.snapshots


async def test_the_first_group_wins_as_soon_as_it_has_the_pool_and_yields_when_it_has_not() -> None:
    with ApiServer() as server:
        server.apply([pool_x(port=8001), pod_body("a")])
        async with following(server) as seen:
            await until(lambda: seen.names and seen.snapshots[-1][0].port == 8001)
            server.apply(pool_v1())
            await until(lambda: seen.snapshots[-1][0].port == 8000)
            server.delete(f"inferencepools.{GIE}", NS, "x")
            await until(lambda: seen.snapshots[-1][0].port == 8001)
            assert [pool.group for pool in seen.pools] == [GIE_X, GIE, GIE_X]
            assert () not in seen.snapshots
            assert not seen.gones


async def test_a_given_group_is_the_only_one() -> None:
    with ApiServer() as server:
        server.apply([pool_v1(), pod_body("a")])
        async with following(server, PoolTarget(NS, "x", GIE_X)) as seen:
            await until(lambda: "is not there" in seen.wrong.get("inferencepools", ""))
            assert not server.asked(plural="inferencepools", group=GIE)
            assert seen.names is None


async def test_a_pool_that_comes_late_and_goes() -> None:
    with ApiServer() as server:
        server.apply([pool_v1("y"), pool_x("z"), pod_body("a")])
        async with following(server) as seen:
            await until(lambda: "there is y, z" in seen.wrong.get("inferencepools", ""))
            line = seen.wrong["inferencepools"]
            for part in (f"{NS}/x", GIE + "/v1", GIE_X + "/v1alpha2"):
                assert part in line
            assert seen.names is None
            server.apply(pool_v1())
            await until(lambda: seen.names == ["a-rank-0"])
            assert "inferencepools" not in seen.wrong
            server.delete(f"inferencepools.{GIE}", NS, "x", grace=True)
            await until(lambda: seen.gones == 1)
            assert seen.names == []
            server.apply(pool_v1())
            await until(lambda: seen.names == ["a-rank-0"])


async def test_a_new_selector_keeps_the_old_pods_until_the_new_ones_are_known() -> None:
    with ApiServer() as server:
        server.apply([pool_v1(), pod_body("a"), pod_body("b", labels={"app": "new"})])
        async with following(server) as seen:
            await until(lambda: seen.names == ["a-rank-0"])
            server.patch(f"inferencepools.{GIE}", NS, "x", {"spec": {"selector": {"matchLabels": {"app": "new"}}}})
            await until(lambda: seen.names == ["b-rank-0"])
            assert [[spec.name for spec in snapshot] for snapshot in seen.snapshots] == [["a-rank-0"], ["b-rank-0"]]
            await until(lambda: server.watching <= 5)


async def test_new_ports_take_effect_without_a_new_watch() -> None:
    with ApiServer() as server:
        server.apply([pool_v1(), pod_body("a")])
        async with following(server) as seen:
            await until(lambda: seen.names == ["a-rank-0"])
            lists = len(server.asked("list", "pods"))
            server.patch(f"inferencepools.{GIE}", NS, "x", {"spec": {"targetPorts": [{"number": 1}, {"number": 2}]}})
            await until(lambda: seen.names == ["a-rank-0", "a-rank-1"])
            assert len(server.asked("list", "pods")) == lists


# A server that goes away in the middle of a TLS handshake leaves a transport of its own unclosed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_outage_changes_nothing_and_is_told() -> None:
    with ApiServer() as server:
        server.apply([pool_v1(), pod_body("a"), pod_body("b")])
        async with following(server) as seen:
            await until(lambda: seen.names == ["a-rank-0", "b-rank-0"])
            server.away()
            await until(lambda: API in seen.wrong)
            assert f"no answer from {server.url}: " in seen.wrong[API]
            asked = len(seen.history)
            await asyncio.sleep(0.3)
            server.delete("pods", NS, "b")
            server.compact()
            server.back()
            await until(lambda: seen.names == ["a-rank-0"])
            await until(lambda: not seen.wrong)
            assert asked == 1
            assert [what for what, _ in seen.history] == [API, API], "one line for all kinds, and one when it is over"
            assert () not in seen.snapshots
            assert not seen.gones


async def test_a_kind_that_is_removed_while_we_serve_ends_nothing() -> None:
    with ApiServer() as server:
        server.apply([pool_v1(), pod_body("a")])
        async with following(server) as seen:
            await until(lambda: seen.names == ["a-rank-0"])
            server.rules.uninstall(GIE)
            server.rules.uninstall(GIE_X)
            server.drop_watches()
            await until(lambda: "inferencepools" in seen.wrong)
            server.apply(pod_body("b"))
            await until(lambda: seen.names == ["a-rank-0", "b-rank-0"])
            assert not seen.gones


async def test_forbidden_pods_are_told_with_verb_and_resource_and_end_with_the_right() -> None:
    with ApiServer() as server:
        server.apply([pool_v1(), pod_body("a")])
        server.rules.deny("list", "pods")
        async with following(server) as seen:
            await until(lambda: "pods" in seen.wrong)
            assert 'verb "list" on "pods"' in seen.wrong["pods"]
            assert seen.names is None
            server.rules.reset()
            await until(lambda: seen.names == ["a-rank-0"])
            await until(lambda: not seen.wrong)


# As above.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_what_is_wrong_with_a_kind_outlasts_an_outage() -> None:
    with ApiServer() as server:
        server.apply([pool_v1(), pod_body("a")])
        server.rules.deny("list", "pods")
        async with following(server) as seen:
            await until(lambda: "pods" in seen.wrong)
            line = seen.wrong["pods"]
            server.away()
            await until(lambda: API in seen.wrong)
            await asyncio.sleep(0.1)
            assert seen.wrong["pods"] == line
            server.rules.reset()
            server.back()
            await until(lambda: seen.names == ["a-rank-0"])
            await until(lambda: not seen.wrong)


async def test_both_groups_forbidden_is_degraded_by_both_lines() -> None:
    with ApiServer() as server:
        server.rules.deny("*", "inferencepools")
        async with following(server) as seen:
            await until(lambda: "inferencepools" in seen.wrong and GIE_X in seen.wrong["inferencepools"])
            assert f'"inferencepools.{GIE}"' in seen.wrong["inferencepools"]


async def test_a_malformed_pool_is_told_and_the_last_good_one_serves() -> None:
    with ApiServer() as server:
        server.apply([pool_v1(), pod_body("a")])
        async with following(server) as seen:
            await until(lambda: seen.names == ["a-rank-0"])
            for spec in (
                {"targetPorts": "many"},
                {"targetPorts": [{"number": 0}]},
                {"selector": {"matchLabels": {"a b": "c"}}},
            ):
                server.apply(pool_v1() | {"spec": pool_v1()["spec"] | spec})
                await until(lambda: f"inferencepool {NS}/x" in seen.wrong.get("inferencepools", ""))
                server.apply(pool_v1())
                await until(lambda: "inferencepools" not in seen.wrong)
            assert len(seen.snapshots) == 1


async def test_malformed_pods_are_told_and_stay_as_they_were() -> None:
    with ApiServer() as server:
        server.apply([pool_v1(), pod_body("a"), pod_body("b")])
        async with following(server) as seen:
            await until(lambda: seen.names == ["a-rank-0", "b-rank-0"])
            for name in ("a", "b"):
                server.patch("pods", NS, name, {"status": {"podIP": 7}})
            await until(lambda: "(and others," in seen.wrong.get("pods-malformed", ""))
            assert seen.wrong["pods-malformed"].startswith(f"pod {NS}/a cannot be read: ")
            assert "podIP" in seen.wrong["pods-malformed"]
            server.apply(pod_body("a"))
            await until(lambda: seen.wrong.get("pods-malformed", "").startswith(f"pod {NS}/b "))
            server.patch(f"inferencepools.{GIE}", NS, "x", {"spec": {"selector": {"matchLabels": {"app": "new"}}}})
            await until(lambda: seen.names == [])
            # The pods of the former selector are nobody's matter.
            await until(lambda: "pods-malformed" not in seen.wrong)
            assert [len(snapshot) for snapshot in seen.snapshots] == [2, 0]


@pytest.mark.parametrize(
    ("pods", "line"),
    [
        ([], f"inferencepool {NS}/x: selector app=vllm matches no pod in namespace {NS}"),
        ([pod_body("a", ready=False), pod_body("b", ip="")], f"inferencepool {NS}/x: selector app=vllm matches 2 pods, none of them is Ready"),
        (
            [pod_body("a", annotations={"llm-d.ai/active-ports": "9"}), pod_body("b", ready=False)],
            f"inferencepool {NS}/x: selector app=vllm: 1 of 2 pods are Ready, none has one of the ports 8000 active",
        ),
    ],
)  # fmt: skip
async def test_a_pool_without_endpoints_says_why(pods: list[dict[str, object]], line: str) -> None:
    with ApiServer() as server:
        server.apply([pool_v1(), *pods])
        async with following(server) as seen:
            await until(lambda: seen.wrong.get("endpoints") == line)
            assert seen.names == []
            server.apply(pod_body("good"))
            await until(lambda: seen.names == ["good-rank-0"])
            assert "endpoints" not in seen.wrong


async def test_endpoint_selector_needs_pods_alone() -> None:
    with ApiServer() as server:
        server.rules.allow_only([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}])
        server.apply([pod_body("a"), pod_body("b", labels={"app": "sglang"}), pod_body("c", labels={"app": "no"})])
        async with following(server, selector_pool(NS, "epp", "app in (vllm,sglang)", [8000, 8001])) as seen:
            await until(lambda: seen.names == ["a-rank-0", "a-rank-1", "b-rank-0", "b-rank-1"])
            assert not seen.wrong
            assert {request.resource for request in server.requests} == {"pods"}


async def test_objects_about_models_are_told_and_never_block_the_endpoints() -> None:
    with ApiServer() as server:
        server.rules.uninstall("llm-d.ai")
        server.rules.deny("list", "inferencemodelrewrites")
        ref = {"name": "x"}
        server.apply(
            [
                pool_v1(),
                pod_body("a"),
                custom("InferenceObjective", "gold", {"poolRef": ref, "priority": 5}, group=GIE_X),
                custom("InferenceObjective", "bad", {"poolRef": ref, "priority": "high"}, group=GIE_X),
                custom("InferenceObjective", "other", {"poolRef": {"name": "y"}, "priority": 9}, group=GIE_X),
                custom(
                    "InferenceModel", "m", {"modelName": "m", "criticality": "Critical", "poolRef": ref}, group=GIE_X
                ),
            ]
        )
        async with following(server) as seen:
            await until(lambda: seen.names == ["a-rank-0"])
            await until(lambda: seen.seen and seen.seen[-1].priorities and seen.seen[-1].objectives)
            assert (dict(seen.seen[-1].objectives), dict(seen.seen[-1].priorities)) == ({"gold": 5}, {"m": 1})
            await until(lambda: len(seen.wrong) == 2)
            assert f'verb "list" on "inferencemodelrewrites.{GIE_X}"' in seen.wrong["inferencemodelrewrites"]
            assert "inferenceobjective kserve-test/bad" in seen.wrong["inferenceobjectives-malformed"]
            server.rules.install("llm-d.ai")
            server.apply(custom("InferenceObjective", "silver", {"poolRef": ref}))
            await until(lambda: dict(seen.seen[-1].objectives) == {"silver": 0})


REF = {"poolRef": {"name": "x"}}


async def test_objects_of_the_older_group_hold_where_the_newer_one_is_forbidden(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "epp.discovery")
    with ApiServer() as server:
        server.rules.allow_only(KSERVE_ROLES["v0.18"])
        server.apply(
            [
                pool_v1(),
                pod_body("a"),
                custom("InferenceObjective", "gold", REF | {"priority": 5}, group=GIE_X),
                custom("InferenceObjective", "silver", REF | {"priority": 3}),
            ]
        )
        async with following(server) as seen:
            await until(lambda: seen.seen and dict(seen.seen[-1].objectives) == {"gold": 5})
            await until(lambda: "inferencemodelrewrites.llm-d.ai may not be read by our role" in caplog.text)
            await until(lambda: server.watching == 5)
            assert not seen.history, "nothing is missing"
            told = len(seen.seen)
            server.rules.allow_only(KSERVE_ROLES["v0.20"])
            await until(lambda: dict(seen.seen[-1].objectives) == {"silver": 3})
            assert len(seen.seen) == told + 1, "one group's objects are exchanged for the other's at once"
            await until(lambda: server.watching == 5)
            assert not seen.history
    assert caplog.text.count("inferenceobjectives.llm-d.ai may not be read by our role") == 1


async def test_both_groups_of_objects_forbidden_is_degraded_by_both_lines() -> None:
    with ApiServer() as server:
        server.rules.deny("*", "inferenceobjectives")
        server.apply(
            [pool_v1(), pod_body("a"), custom("InferenceObjective", "gold", REF | {"priority": 5}, group=GIE_X)]
        )
        async with following(server) as seen:
            await until(lambda: "inferenceobjectives" in seen.wrong)
            for group in (LLM_D, GIE_X):
                assert f'"inferenceobjectives.{group}"' in seen.wrong["inferenceobjectives"]
            server.rules.reset()
            server.rules.deny("*", "inferenceobjectives", LLM_D)
            await until(lambda: not seen.wrong)
            await until(lambda: seen.seen and dict(seen.seen[-1].objectives) == {"gold": 5})
            server.rules.reset()
            await until(lambda: not seen.seen[-1].objectives)
            assert not seen.wrong


async def test_rights_that_are_taken_away_leave_what_was_read() -> None:
    with ApiServer() as server:
        server.apply([pool_v1(), pod_body("a"), custom("InferenceObjective", "silver", REF | {"priority": 3})])
        async with following(server) as seen:
            await until(lambda: seen.seen and dict(seen.seen[-1].objectives) == {"silver": 3})
            server.rules.deny("*", "inferenceobjectives", LLM_D)
            server.drop_watches()
            await until(lambda: "inferenceobjectives" in seen.wrong)
            assert dict(seen.seen[-1].objectives) == {"silver": 3}


async def test_a_thousand_pods_and_all_of_them_change() -> None:
    with ApiServer() as server:
        names = [f"p{at:04}" for at in range(1000)]
        server.apply(
            [pool_v1(), *(pod_body(name, ip=f"10.0.{at // 250}.{at % 250 + 1}") for at, name in enumerate(names))]
        )
        async with following(server) as seen:
            await until(lambda: seen.names is not None and len(seen.names) == 1000)
            assert len(seen.snapshots) == 1
            for name in names[500:]:
                server.delete("pods", NS, name)
            await until(lambda: seen.names == [f"{name}-rank-0" for name in names[:500]])
            server.compact()
            server.drop_watches()
            server.apply(pod_body("z"))
            await until(lambda: "z-rank-0" in (seen.names or ()))
            assert len(seen.snapshots[-1]) == 501
