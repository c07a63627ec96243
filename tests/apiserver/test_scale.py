# SPDX-License-Identifier: Apache-2.0
"""Large numbers: a thousand pods, and their changes one after the other."""

from __future__ import annotations

from tests.apiserver.client import PODS, Client
from tests.apiserver.server import ApiServer
from tests.apiserver.tutorial import pod_name, tutorial

COUNT = 1000


def test_a_thousand_pods_and_as_many_changes() -> None:
    with ApiServer() as server, Client(server) as client:
        server.apply(tutorial("v0.20", COUNT))
        listed = client.get(PODS, labelSelector="kserve.io/component=workload").body
        assert len(listed["items"]) == COUNT
        events = client.watch(PODS, resourceVersion=listed["metadata"]["resourceVersion"], timeoutSeconds=600)
        for number in range(COUNT):
            server.patch("pods", "kserve-test", pod_name(number), {"metadata": {"annotations": {"turn": "1"}}})
        told = [next(events)["object"]["metadata"]["name"] for _ in range(COUNT)]
        assert told == [pod_name(number) for number in range(COUNT)]
