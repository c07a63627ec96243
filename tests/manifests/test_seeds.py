# SPDX-License-Identifier: Apache-2.0
"""The manifests of both tutorials, unchanged, and the samples: what they mean, value for value."""

from __future__ import annotations

from pathlib import Path

import pytest

from epp.config.catalog import collect
from epp.config.load import load_text
from epp.manifests import read_files, resolve, service_rules
from epp.manifests.limits import Absent, Charge, LimitPolicy, LimitRule, Match, Selector, Unit
from epp.manifests.topology import Backend, Cost, HeaderMatch, Listener, Route, Rule, Target, Topology
from tests.manifests.support import DATA, SAMPLES

QWEN = "Qwen/Qwen2.5-0.5B-Instruct"
COSTS = (
    Cost("llm_input_token", "InputToken"),
    Cost("llm_output_token", "OutputToken"),
    Cost("llm_total_token", "TotalToken"),
)
KEYS = {"EPP_SECRET_DEFAULT_PROVIDER_KEY": "k"}


def read(*files: Path) -> Topology:
    return resolve(read_files(files), environ=KEYS)


def tutorial_policy(namespace: str, gateway: str, model: str) -> LimitPolicy:
    selectors = (
        Selector("rule-0-match-0", "x-user-id", Match.DISTINCT),
        Selector("rule-0-match-1", "x-ai-eg-model", Match.EXACT, model),
    )
    booked = Charge(namespace="io.envoy.ai_gateway", key="llm_total_token")
    rule = LimitRule(selectors, 1000, Unit.HOUR, Charge(number=0), booked)
    return LimitPolicy(f"{namespace}/model-specific-token-limit-policy", (rule,), (f"{namespace}/{gateway}",))


def tutorial_route(namespace: str, gateway: str, model: str, target: Target) -> Route:
    rule = Rule(
        f"{namespace}/envoy-ai-gateway/rule/0", ((HeaderMatch("x-ai-eg-model", model),),), (target,), timeout_s=60.0
    )
    return Route(f"{namespace}/envoy-ai-gateway", (f"{namespace}/{gateway}",), (rule,), COSTS)


def test_inferenceservice() -> None:
    found = read(DATA / "inferenceservice.yaml")
    target = Target("default/envoy-ai-gateway-openai-kserve", pool=False, weight=100)
    assert found.listeners == (Listener("default/envoy-ai-gateway-basic", "http", 80),)
    assert found.routes == (tutorial_route("default", "envoy-ai-gateway-basic", "llama3-1b", target),)
    assert found.backends == (Backend("default/envoy-ai-gateway-openai-kserve", ("llama3-1b",)),)
    assert found.pools == ()
    assert found.limits == (tutorial_policy("default", "envoy-ai-gateway-basic", "llama3-1b"),)
    assert found.unsupported == ()
    assert [line.partition(": ")[2] for line in found.warnings] == [
        (
            "BackendTLSPolicy default/envoy-ai-gateway-basic-openai-tls: no backend that a route leads to is reached by "
            "Service default/llama3-1b-predictor; kserve-test/llama3-1b-predictor is of another namespace, and a policy "
            "holds for its own alone; it has no effect"
        ),
        "BackendSecurityPolicy default/envoy-ai-gateway-openai-kserve-apikey: no backend that a route leads to uses it",
    ]


def test_llminferenceservice() -> None:
    found = read(DATA / "llminferenceservice.yaml")
    target = Target("kserve-test/qwen-instruct-inference-pool", pool=True)
    assert found.listeners == (Listener("kserve-test/ai-gateway", "http", 80),)
    assert found.routes == (tutorial_route("kserve-test", "ai-gateway", QWEN, target),)
    (pool,) = found.pools
    assert (pool.name, pool.models, pool.port, pool.replicas) == (target.name, (QWEN,), 8000, 4)
    assert (pool.endpoints, pool.key, found.backends) == ((), None, ())
    assert pool.picker_config is not None
    configuration = load_text(pool.picker_config.text, collect(), source="the ConfigMap")
    assert configuration is not None
    assert found.limits == (tutorial_policy("kserve-test", "ai-gateway", QWEN),)
    assert found.unsupported == ()
    assert found.warnings == ()


@pytest.mark.parametrize("name", ["inferenceservice", "llminferenceservice"])
def test_tutorial_as_markdown_means_the_same(name: str, tmp_path: Path) -> None:
    blocks = (DATA / f"{name}.yaml").read_text().split("\n---\n")
    file = tmp_path / f"{name}.md"
    file.write_text("# Tutorial\n" + "\n".join(f'```yaml title="{i}"\n{b}\n```\nwords' for i, b in enumerate(blocks)))
    given, plain = read(file), read(DATA / f"{name}.yaml")
    assert (given.routes, given.backends, given.limits) == (plain.routes, plain.backends, plain.limits)
    assert len(given.pools) == len(plain.pools)


def test_both_in_one_gateway() -> None:
    one, two = (read(DATA / f"{name}.yaml") for name in ("inferenceservice", "llminferenceservice"))
    both = read(SAMPLES / "both.yaml")
    assert both.listeners == one.listeners + two.listeners
    assert both.routes == one.routes + two.routes
    assert both.limits == one.limits + two.limits
    assert [rules["domain"] for rules in service_rules(both).domains] == [
        "default/envoy-ai-gateway-basic/http",
        "kserve-test/ai-gateway/http",
    ]


@pytest.mark.parametrize("name", ["inferenceservice", "llminferenceservice"])
def test_sample_is_the_tutorial(name: str) -> None:
    """Users see the same text that is tested."""
    text = (DATA / f"{name}.yaml").read_text()
    assert (SAMPLES / f"{name}.yaml").read_text().endswith(text)
    assert text in (SAMPLES / "both.yaml").read_text()


@pytest.mark.parametrize("file", sorted(SAMPLES.glob("*.yaml")), ids=lambda file: file.name)
def test_every_sample_resolves_and_is_described(file: Path) -> None:
    found = read(file)
    assert found.routes
    assert found.unsupported == ()
    assert f"`{file.name}`" in (SAMPLES / "README.md").read_text()


def test_samples_with_keys_and_endpoints() -> None:
    own = read(SAMPLES / "own-servers.yaml").pools[0]
    assert own.endpoints == ("127.0.0.1:8000", "127.0.0.1:8001")
    assert own.key is not None
    assert (own.key.key.text, own.key.header, own.key.prefix) == ("token-abc123", "authorization", "Bearer ")
    assert own.picker_config is not None
    assert "queue-scorer" in own.picker_config.text
    external = read(SAMPLES / "external-https-backend.yaml")
    assert external.backends[0].endpoints == ("api.openai.com:443",)
    assert external.backends[0].tls is not None
    assert external.backends[0].tls.hostname == "api.openai.com"
    assert external.limits[0].absent is Absent.REJECT
    assert [pool.replicas for pool in read(SAMPLES / "limits.yaml").pools] == [3]
