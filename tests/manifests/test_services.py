# SPDX-License-Identifier: Apache-2.0
"""KServe's services: names, models, replicas, and the picker's configuration from wherever it is given."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.config.catalog import collect
from epp.config.findings import ConfigErrors
from epp.config.load import load_text
from epp.manifests.naming import child_name, expand
from epp.manifests.services import flag_values, merge
from tests.manifests.support import GATEWAY, ROUTE, mistakes, swap, told, topology

REF = "{group: inference.networking.k8s.io, kind: InferencePool, name: POOL}"
CONFIG = "{apiVersion: inference.networking.x-k8s.io/v1alpha1, kind: EndpointPickerConfig, plugins: []}"


def service(spec: str, *, name: str = "s", pool: str = "s-inference-pool", more: str = "") -> str:
    route = ROUTE.replace("[{name: b}]", f"[{REF.replace('POOL', pool)}]")
    head = (
        f"\n---\napiVersion: serving.kserve.io/v1alpha1\nkind: LLMInferenceService\nmetadata: {{name: {name}}}\nspec:\n"
    )
    return GATEWAY + route + head + spec + more


def config_of(spec: str, more: str = "") -> str | None:
    config = topology(service(spec, more=more)).pools[0].picker_config
    return None if config is None else config.text


MODEL = "  model: {uri: hf://x, name: m}\n"
SCHEDULER = "  router: {scheduler: {}}\n"
CONFIG_MAP = "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {one.yaml: first, two.yaml: second}\n"


@pytest.mark.parametrize(
    ("spec", "models", "replicas"),
    [
        (MODEL + SCHEDULER, ("m",), 1),
        ("  model: {uri: hf://x}\n" + SCHEDULER, ("s",), 1),
        (MODEL + SCHEDULER + "  replicas: 3\n", ("m",), 3),
        (MODEL + SCHEDULER + "  replicas: 0\n", ("m",), 1),
        (MODEL + SCHEDULER + "  scaling: {minReplicas: 2, maxReplicas: 5}\n", ("m",), 2),
        (MODEL.replace("}", ", lora: {adapters: [{name: l, uri: hf://y}]}}") + SCHEDULER, ("m", "l"), 1),
        (MODEL + SCHEDULER + "  template: {containers: [{name: main, args: [--served-model-name, m, o, --port, '1']}]}\n", ("m", "o"), 1),
        (MODEL + SCHEDULER + "  template: {containers: [{name: main, args: ['--served-model-name={{ .Spec.Model.Name }}']}]}\n", ("m",), 1),
    ],
)  # fmt: skip
def test_models_and_replicas(spec: str, models: tuple[str, ...], replicas: int) -> None:
    (pool,) = topology(service(spec)).pools
    assert (pool.name, pool.models, pool.replicas, pool.port) == ("default/s-inference-pool", models, replicas, 8000)


def test_model_that_is_not_served_is_told() -> None:
    (warning,) = topology(service(MODEL.replace("name: m", "name: other") + SCHEDULER)).warnings
    assert 'a route asks it for model "m"; it serves other' in warning


def test_pool_by_reference_and_port_by_spec() -> None:
    document = "\n---\napiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {name: mine}\nspec: {targetPorts: [{number: 9}]}\n"
    text = service(MODEL + "  router: {scheduler: {pool: {ref: {name: mine}}}}\n", pool="mine", more=document)
    (pool,) = topology(text).pools
    assert (pool.name, pool.models, pool.port) == ("default/mine", ("m",), 9)
    text = service(MODEL + "  router: {scheduler: {pool: {spec: {selector: {}, targetPortNumber: 7}}}}\n")
    assert topology(text).pools[0].port == 7


def test_without_scheduler_there_is_no_pool() -> None:
    (line,) = mistakes(service(MODEL))
    assert "InferencePool default/s-inference-pool is not in the files" in line


def test_endpoints_by_the_name_of_the_service() -> None:
    text = service(MODEL + SCHEDULER, more="\n---\nendpoints: {s: ['h:1']}\n")
    assert topology(text).pools[0].endpoints == ("h:1",)


def args(*words: str) -> str:
    listed = ", ".join(f"'{word}'" for word in words)
    mount = "volumeMounts: [{name: v, mountPath: /etc/config}, {name: w, mountPath: /etc}]"
    volumes = "volumes: [{name: v, configMap: {name: c, items: [{key: two.yaml, path: renamed.yaml}]}}, {name: w, secret: {}}]"
    return f"  router: {{scheduler: {{template: {{containers: [{{name: main, args: [{listed}], {mount}}}], {volumes}}}}}}}\n"


@pytest.mark.parametrize(
    ("scheduler", "config"),
    [
        (SCHEDULER, None),
        (args("--configText", "the text"), "the text"),
        (args("--config-text=the text"), "the text"),
        (args("--config-text", "one", "--config-text", "{{ .ObjectMeta.Name }}"), "s"),
        (args("--configFile", "/etc/config/one.yaml"), "first"),
        (args("--config-file=/etc/config/renamed.yaml"), "second"),
        ("  router: {scheduler: {config: {ref: {name: c, key: two.yaml}}}}\n", "second"),
        (f"  router: {{scheduler: {{config: {{inline: {CONFIG}}}}}}}\n", '{"apiVersion": "inference.networking.x-k8s.io/v1alpha1", "kind": "EndpointPickerConfig", "plugins": []}'),
    ],
)  # fmt: skip
def test_picker_configuration(scheduler: str, config: str | None) -> None:
    assert config_of(MODEL + scheduler, CONFIG_MAP) == config


@pytest.mark.parametrize(
    ("scheduler", "more", "line"),
    [
        (args("--configFile", "/etc/config/one.yaml"), "", "its picker is configured by a ConfigMap: ConfigMap default/c is not in the files"),
        (args("--configFile", "/etc/config/oen.yaml"), CONFIG_MAP, "ConfigMap default/c has no key 'oen.yaml'; did you mean 'one.yaml'?"),
        (args("--configFile", "/elsewhere/one.yaml"), CONFIG_MAP, "--config-file /elsewhere/one.yaml is in no volume of a ConfigMap"),
        (args("--configFile", "/etc/one.yaml"), CONFIG_MAP, "--config-file /etc/one.yaml is in no volume of a ConfigMap"),
        ("  router: {scheduler: {config: {ref: {name: d, key: k}}}}\n", CONFIG_MAP.replace("name: c}", "name: dd}"), "did you mean"),
        (SCHEDULER + "  baseRefs: [{name: x}]\n", "", "LLMInferenceServiceConfig default/x is not in the files"),
    ],
)  # fmt: skip
def test_mistakes_of_services(scheduler: str, more: str, line: str) -> None:
    said = mistakes(service(MODEL + scheduler, more=more))
    if "did you mean" in line and "name: d," in scheduler:
        line = "ConfigMap default/d is not in the files"
    assert line in said[0]


def test_preset_of_kserve_is_left_out() -> None:
    (warning,) = topology(service(MODEL + SCHEDULER + "  baseRefs: [{name: kserve-config-llm-template}]\n")).warnings
    assert "it is a preset of KServe, and left out" in warning


def test_bases_lie_below_the_service_and_the_last_one_on_top() -> None:
    base = "\n---\napiVersion: serving.kserve.io/v1alpha1\nkind: LLMInferenceServiceConfig\nmetadata: {name: %s}\nspec: {replicas: %d, model: {name: %s}, router: {scheduler: {}}}\n"
    more = base % ("one", 2, "from-one") + base % ("two", 3, "m")
    (pool,) = topology(service("  model: {uri: hf://x}\n  baseRefs: [{name: one}, {name: two}]\n", more=more)).pools
    assert (pool.replicas, pool.models) == (3, ("m",))


def test_merge_by_names() -> None:
    below = {"containers": [{"name": "main", "args": ["a"], "image": "i"}, {"name": "side"}], "x": {"y": 1, "z": 2}}
    above = {"containers": [{"name": "main", "args": ["b"]}, {"name": "new"}], "x": {"y": 3}}
    assert merge(below, above) == {
        "containers": [{"name": "main", "args": ["b"], "image": "i"}, {"name": "side"}, {"name": "new"}],
        "x": {"y": 3, "z": 2},
    }


def test_flags() -> None:
    words = ["serve", "--a", "1", "2", "-b", "--a=3", "4", "--c"]
    assert list(flag_values(words, ("--a",))) == ["1", "2", "3"]
    assert list(flag_values(words, ("--c",))) == []


PREDICTOR = """
---
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: i}
spec: {predictor: {PREDICTOR}}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: b}
spec: {schema: {name: OpenAI}, backendRef: {kind: Service, name: i-predictor, port: 80}}
"""


@pytest.mark.parametrize(
    ("predictor", "models", "replicas"),
    [
        ("model: {args: [--model_name=m]}", ("m",), 1),
        ("model: {args: [--model_name, m, --other]}, minReplicas: 3", ("m",), 3),
        ("model: {modelFormat: {name: x}}, minReplicas: 0", ("i",), 1),
        ("containers: [{name: kserve-container, args: [--model-name=m]}]", ("m",), 1),
    ],
)
def test_inference_service(predictor: str, models: tuple[str, ...], replicas: int) -> None:
    (backend,) = topology(GATEWAY + ROUTE + PREDICTOR.replace("PREDICTOR", predictor)).backends
    assert (backend.models, backend.replicas) == (models, replicas)


def test_workload_service_of_an_llm_service() -> None:
    backend = PREDICTOR[PREDICTOR.index("---\napiVersion: aig") :].replace("i-predictor", "s-kserve-workload-svc")
    text = swap(service(MODEL), f"[{REF.replace('POOL', 's-inference-pool')}]", "[{name: b}]")
    assert topology(text + "\n" + backend).backends[0].models == ("m",)
    assert told(text + "\n" + backend) == []


@pytest.mark.parametrize(
    ("parent", "suffix", "name"),
    [
        ("qwen-instruct", "-inference-pool", "qwen-instruct-inference-pool"),
        ("p" * 48, "-inference-pool", "p" * 48 + "-inference-pool"),
        ("p" * 49, "-inference-pool", "p" * 16 + hashlib.md5(b"p" * 49).hexdigest() + "-inference-pool"),
        ("p" * 40, "-" + "s" * 31, "p" * 31 + hashlib.md5(b"p" * 40 + b"-" + b"s" * 31).hexdigest()),
        ("pp", "-" + "s" * 62, "pp" + hashlib.md5(b"pp-" + b"s" * 62).hexdigest() + "-" + "s" * 28),
    ],
)
def test_names_of_children(parent: str, suffix: str, name: str) -> None:
    assert child_name(parent, suffix) == name


@given(st.text("abc-9", min_size=1, max_size=80), st.text("xyz-", max_size=70))
def test_names_of_children_are_short_and_distinct(parent: str, suffix: str) -> None:
    name = child_name(parent, suffix)
    assert len(name) <= max(63, 0)
    if len(parent) + len(suffix) <= 63:
        assert name == parent + suffix
    else:
        assert name != child_name(parent + "a", suffix)


def test_expressions() -> None:
    values = {"name": "n", "namespace": "ns", "model": "m"}
    assert (
        expand("{{ .Spec.Model.Name }} {{.ObjectMeta.Namespace}} {{ ChildName .ObjectMeta.Name `-x` }}", **values)
        == "m ns n-x"
    )
    assert expand("{{ .Other }} {{ }", **values) == "{{ .Other }} {{ }"


@pytest.mark.parametrize(
    "written",
    [
        "inline:\n          plugins:\n          - type: queue-scorer\n            parameters: null\n          - type: BAD\n",
        "inline:\n          plugins: [{type: queue-scorer},\n            # a line more\n            {type: BAD}]\n",
        "inline: |\n          plugins:\n          - type: queue-scorer\n          - type: BAD\n",
        "inline: '{plugins: [{type: BAD}]}'\n",
        "ref: {name: c, key: k}\n",
    ],
)
def test_a_picker_configuration_keeps_the_lines_of_its_file(written: str) -> None:
    data = (
        "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  k: |\n    plugins:\n    - type: BAD2\n"
    )
    more = data.replace("BAD2", "BAD") if "ref:" in written else data
    text = service(MODEL + "  router:\n    scheduler:\n      config:\n        " + written, more=more)
    config = topology(text).pools[0].picker_config
    assert config is not None
    assert config.file == "-"
    padded = "\n" * (config.line - 1) + config.text
    with pytest.raises(ConfigErrors) as raised:
        load_text(padded, collect(), source="x")
    (finding,) = [one for one in raised.value.findings if "'BAD'" in one.text or '"BAD"' in one.text]
    assert "BAD" in text.splitlines()[finding.line - 1]
