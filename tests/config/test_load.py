# SPDX-License-Identifier: Apache-2.0
"""What a configuration becomes: documents of every era, and what is filled in."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import yaml

from epp.config.catalog import Catalog
from epp.config.configuration import Configuration, Origin
from epp.config.load import load_file
from epp.contract.plugins import Reads

Load = Callable[..., Configuration]
Mistakes = Callable[..., list[str]]

KSERVE_GUIDE = """\
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
  - type: single-profile-handler
  - type: prefix-cache-scorer
  - type: load-aware-scorer
    parameters:
          threshold: 100
  - type: max-score-picker
schedulingProfiles:
  - name: default
    plugins:
      - pluginRef: prefix-cache-scorer
        weight: 2.0
      - pluginRef: load-aware-scorer
        weight: 1.0
      - pluginRef: max-score-picker
"""


def weights(configuration: Configuration, profile: int = 0) -> dict[str, float]:
    return {scorer.name: scorer.weight for scorer in configuration.profiles[profile].scorers}


def config(plugins: list[str], refs: dict[str, float | None], version: str = "llm-d.ai/v1alpha1") -> str:
    members = [{"pluginRef": name} | ({} if weight is None else {"weight": weight}) for name, weight in refs.items()]
    return json.dumps(
        {
            "apiVersion": version,
            "kind": "EndpointPickerConfig",
            "plugins": [{"type": name} for name in plugins],
            "schedulingProfiles": [{"name": "default", "plugins": members}],
        }
    )


@pytest.mark.parametrize("text", [KSERVE_GUIDE, json.dumps(yaml.safe_load(KSERVE_GUIDE), indent="\t")])
def test_the_guides_configuration(load: Load, text: str) -> None:
    found = load(text)
    assert weights(found) == {"prefix-cache-scorer": 2.0, "load-aware-scorer": 1.0}
    assert found.profiles[0].picker == "max-score-picker"
    assert found.profiles[0].picker_origin is Origin.GIVEN
    assert found.handler == "single-profile-handler"
    assert found.instance("load-aware-scorer").parameters.threshold == 100
    assert found.warnings == ()
    assert found.notes[0] == (
        "line 1: apiVersion inference.networking.x-k8s.io/v1alpha1 is deprecated; the current one is llm-d.ai/v1alpha1"
    ) or text.startswith("{")
    assert Reads.WAITING in found.reads
    assert Reads.KV_UTILIZATION not in found.reads


@pytest.mark.parametrize("text", ["", "{}", "---\n", "# nothing\n", "kind: EndpointPickerConfig\n", "plugins: []\n"])
def test_nothing_given_is_the_built_in_configuration(load: Load, text: str) -> None:
    found = load(text)
    assert weights(found) == {"queue-scorer": 2.0, "kv-cache-utilization-scorer": 2.0, "prefix-cache-scorer": 3.0}
    assert found.profiles[0].name == "default"
    assert found.profiles[0].origin is Origin.DEFAULT
    assert found.profiles[0].picker == "max-score-picker"
    assert found.handler == "single-profile-handler"
    assert found.producers == ("approx-prefix-cache-producer",)
    assert [(source.name, source.extractors) for source in found.sources] == [
        ("metrics-data-source", ("core-metrics-extractor",))
    ]
    assert found.parsers == ("openai-parser", "anthropic-parser", "passthrough-parser")
    assert found.discovery is None
    assert {i.origin for i in found.instances} == {Origin.DEFAULT}
    needed = Reads.WAITING | Reads.KV_UTILIZATION | Reads.PREFIX_MATCH | Reads.PROMPT
    assert needed in found.reads


def test_a_configuration_of_discovery_alone_still_chooses_well(load: Load) -> None:
    found = load(
        "plugins: [{type: file-discovery, parameters: {path: /e.yaml}}]\n"
        "dataLayer: {discovery: {pluginRef: file-discovery}}\n"
    )
    assert found.discovery == "file-discovery"
    assert len(found.profiles[0].scorers) == 3


KSERVE_DEFAULTS = [
    # KServe 0.16, single node
    (["single-profile-handler", "prefix-cache-scorer", "load-aware-scorer", "max-score-picker"],
     {"prefix-cache-scorer": 2.0, "load-aware-scorer": 1.0, "max-score-picker": None}),
    # KServe 0.17 to 0.19, single node
    (["single-profile-handler", "queue-scorer", "prefix-cache-scorer"],
     {"queue-scorer": 2, "prefix-cache-scorer": 3}),
    # llm-d 0.2: epp-prefix-estimate
    (["prefix-cache-scorer", "load-aware-scorer", "max-score-picker", "single-profile-handler"],
     {"max-score-picker": None, "prefix-cache-scorer": 2.0, "load-aware-scorer": 1.0}),
    # GIE 0.5.1: plugins-v2
    (["queue-scorer", "kv-cache-scorer", "prefix-cache-scorer", "max-score-picker", "single-profile-handler"],
     {"queue-scorer": 1, "kv-cache-scorer": 1, "prefix-cache-scorer": 1, "max-score-picker": None}),
    # GIE 1.2 to 1.4 and llm-d 0.9: the chart's default
    (["queue-scorer", "kv-cache-utilization-scorer", "prefix-cache-scorer"],
     {"queue-scorer": 2, "kv-cache-utilization-scorer": 2, "prefix-cache-scorer": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("plugins", "refs"), KSERVE_DEFAULTS)
@pytest.mark.parametrize("version", ["llm-d.ai/v1alpha1", "inference.networking.x-k8s.io/v1alpha1"])
def test_generated_and_sample_configurations_load(
    load: Load, plugins: list[str], refs: dict[str, float | None], version: str
) -> None:
    found = load(config(plugins, refs, version))
    assert weights(found) == {name: weight for name, weight in refs.items() if weight is not None}
    assert found.profiles[0].picker == "max-score-picker"
    assert found.handler == "single-profile-handler"
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("type_name", "nearest"),
    [
        ("no-hit-lru-scorer", None), ("decode-filter", None), ("pd-profile-handler", "single-profile-handler"),
        ("prefill-header-handler", None), ("disagg-profile-handler", "single-profile-handler"),
        ("session-affinity-scorer", None), ("decision-tree-filter", None),
        ("precise-prefix-cache-scorer", "prefix-cache-scorer"), ("sglanghttp-parser", None),
        ("vllmhttp-parser", None), ("always-disagg-pd-decider", None), ("context-length-aware", None),
    ],
)  # fmt: skip
def test_samples_with_other_plugins_name_what_is_missing(
    mistakes: Mistakes, type_name: str, nearest: str | None
) -> None:
    found = mistakes(config(["queue-scorer", type_name], {"queue-scorer": 1, type_name: 1}))
    assert len(found) == 1
    assert found[0].startswith(f"line 1: plugin type '{type_name}' is not registered")
    assert nearest is None or f"did you mean '{nearest}'?" in found[0]


def test_declared_plugins_without_profiles_make_one_in_their_order(load: Load) -> None:
    found = load("plugins: [{type: random-picker}, {type: load-aware-scorer}, {type: queue-scorer}]\n")
    assert weights(found) == {"load-aware-scorer": 1.0, "queue-scorer": 1.0}
    assert [scorer.origin for scorer in found.profiles[0].scorers] == [Origin.DEFAULT, Origin.DEFAULT]
    assert found.profiles[0].picker == "random-picker"
    assert found.profiles[0].origin is Origin.DEFAULT


def test_a_profile_without_picker_gets_the_first_declared_one(load: Load) -> None:
    found = load(
        "plugins: [{type: queue-scorer}, {type: weighted-random-picker}, {type: random-picker}]\n"
        "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer, weight: -2.5}]}]\n"
    )
    assert found.profiles[0].picker == "weighted-random-picker"
    assert found.profiles[0].picker_origin is Origin.DEFAULT
    assert weights(found) == {"queue-scorer": -2.5}
    assert "line 1: plugin 'random-picker' (random-picker) is in no scheduling profile and has no effect" in found.notes


def test_an_added_plugin_never_takes_a_name_in_use(load: Load) -> None:
    found = load("plugins: [{type: queue-scorer, name: max-score-picker}]\n")
    assert found.profiles[0].picker == "max-score-picker-2"
    assert found.instance("max-score-picker").spec.type == "queue-scorer"


def test_aliases_keep_their_name_and_are_noted(load: Load) -> None:
    found = load("plugins: [{type: kv-cache-scorer}, {type: model-server-protocol-metrics}]\n")
    instance = found.instance("kv-cache-scorer")
    assert (instance.type, instance.spec.type) == ("kv-cache-scorer", "kv-cache-utilization-scorer")
    assert found.sources[0].extractors == ("model-server-protocol-metrics",)
    assert found.notes[0] == ("line 1: plugin type 'kv-cache-scorer' is an older name of 'kv-cache-utilization-scorer'")


def test_a_metrics_source_of_another_name_is_not_doubled(load: Load) -> None:
    found = load(
        "plugins:\n- type: queue-scorer\n- {type: metrics-data-source, name: pages, parameters: {port: 8001}}\n"
        "- type: core-metrics-extractor\ndataLayer:\n  sources:\n  - pluginRef: pages\n    extractors:\n"
        "    - pluginRef: core-metrics-extractor\n"
    )
    assert [(s.name, s.extractors, s.origin) for s in found.sources] == [
        ("pages", ("core-metrics-extractor",), Origin.GIVEN)
    ]
    assert found.of_type("metrics-data-source") is found.instance("pages")
    assert found.instance("pages").parameters.port == 8001


def test_metrics_parameters(load: Load) -> None:
    found = load(
        "plugins:\n- type: metrics-data-source\n  parameters: {scheme: https, path: /m, interval: 200ms}\n"
        "- type: core-metrics-extractor\n  parameters:\n    engineLabelKey: inference.networking.k8s.io/engine-type\n"
        "    defaultEngine: vllm\n    engineConfigs:\n    - name: vllm\n      queuedRequestsSpec: 'q{kind=\"a\", x=b}'\n"
        "      customMetrics: [{attributeKey: a, metricSpec: b}]\n"
    )
    source = found.instance("metrics-data-source").parameters
    assert (source.scheme, source.path, source.interval_s, source.insecureSkipVerify) == ("https", "/m", 0.2, True)
    engine = found.instance("core-metrics-extractor").parameters.engineConfigs[0]
    assert engine.queuedRequestsSpec == 'q{kind="a", x=b}'
    assert engine.customMetrics[0].attributeKey == "a"


def test_without_scraping_plugins_metrics_may_be_left_out(load: Load) -> None:
    found = load("plugins: [{type: active-request-scorer}]\ndataLayer: {injectDefaults: false}\n")
    assert found.sources == ()
    assert found.reads == Reads.IN_FLIGHT


def test_parsers(load: Load) -> None:
    given = load("requestHandler: {parsers: [{pluginRef: passthrough-parser}]}\n")
    assert (given.parsers, given.parsers_origin) == (("passthrough-parser",), Origin.GIVEN)
    old = load("plugins: [{type: openai-parser, name: mine}]\nparser: {pluginRef: mine}\n")
    assert old.parsers == ("mine",)
    assert "line 2: 'parser' is deprecated; list it under requestHandler.parsers" in old.notes


def test_prompts_that_nobody_parses_are_a_warning(load: Load) -> None:
    found = load("requestHandler: {parsers: [{pluginRef: passthrough-parser}]}\n")
    assert found.warnings == (
        (
            "plugin 'approx-prefix-cache-producer' (approx-prefix-cache-producer) reads the prompt, but passthrough-parser"
            " leaves every body unread; add openai-parser to requestHandler.parsers"
        ),
    )


def test_names_of_parameters_ignore_case_and_unknown_ones_warn(load: Load) -> None:
    found = load("plugins:\n- type: load-aware-scorer\n  parameters:\n    THRESHOLD: 64\n    treshold: 3\n")
    assert found.instance("load-aware-scorer").parameters.threshold == 64
    assert found.warnings == (
        (
            "line 5: plugin 'load-aware-scorer' (load-aware-scorer) parameters: unknown parameter \"treshold\" is ignored;"
            " did you mean 'threshold'? allowed: threshold"
        ),
    )


@pytest.mark.parametrize("value", ["100", "100.0", "1e2", "1_00", "0144"])
def test_numbers_may_be_spelled_as_go_allows(load: Load, value: str) -> None:
    found = load(f"plugins: [{{type: load-aware-scorer, parameters: {{threshold: {value}}}}}]\n")
    assert found.instance("load-aware-scorer").parameters.threshold == 100


def test_null_means_not_given(load: Load) -> None:
    found = load(
        "plugins:\n- type: load-aware-scorer\n  name:\n  parameters: {threshold: ~}\nschedulingProfiles:\n"
        "- name: p\n  plugins: [{pluginRef: load-aware-scorer, weight: null}]\nfeatureGates:\ndataLayer:\n"
    )
    assert found.instance("load-aware-scorer").parameters.threshold == 128
    assert found.profiles[0].scorers[0].origin is Origin.DEFAULT


def test_plugins_that_take_no_parameters_ignore_any(load: Load) -> None:
    found = load("plugins:\n- type: queue-scorer\n  parameters: {a: 1, b: 2}\n", strict=True)
    assert "line 3: plugin 'queue-scorer' (queue-scorer) takes no parameters and ignores a, b" in found.notes
    found = load("plugins:\n- type: queue-scorer\n  parameters: 5\n", strict=True)
    assert "line 3: plugin 'queue-scorer' (queue-scorer) takes no parameters and ignores 5" in found.notes


HISTORY = [
    ("featureGates: [dataLayer, prepareDataPlugins=false, enableLegacyMetrics]\n",
     "line 1: feature gate 'prepareDataPlugins' is of earlier releases and has no effect"),
    ("featureGates: [flowControl=True]\n",
     "line 1: feature gate 'flowControl' has no effect yet: requests are not queued"),
    ("featureGates: [haPopulateNonLeaderDatastore=false]\n",
     "line 1: feature gate 'haPopulateNonLeaderDatastore' has no effect yet"),
    ("data: {injectDefaults: true}\n", "line 1: 'data' is an older name of 'dataLayer'"),
    ("saturationDetector: {queueDepthThreshold: 5, kvCacheUtilThreshold: 0.8, metricsStalenessThreshold: 200ms}\n",
     "added plugin 'utilization-detector': saturationDetector has thresholds"),
    ("saturationDetector: {pluginRef: utilization-detector}\n",
     "line 1: saturationDetector is deprecated; name it under flowControl"),
    (("flowControl:\n  maxBytes: 1Gi\n  maxRequests: 2k\n  defaultRequestTTL: 1m0.5s\n  noEndpointRequestTTL: 0s\n"
     "  defaultPriorityBand: {maxRequests: 5e3, fairnessPolicyRef: global-strict-fairness-policy}\n"
     "  priorityBands: [{priority: -1, orderingPolicyRef: fcfs-ordering-policy, maxBytes: 100}, {priority: 0}]\n"
     "  saturationDetector: {pluginRef: utilization-detector}\n  enableEviction: yes\n"),
     "line 1: flowControl has no effect yet, but for its saturationDetector: requests are not queued"),
    ("dataLayer: {crossReplicaSyncInterval: 5s}\n",
     "line 1: dataLayer.crossReplicaSyncInterval has no effect yet: replicas do not know each other"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "note"), HISTORY)
def test_fields_of_every_era_load_and_say_what_has_no_effect(load: Load, text: str, note: str) -> None:
    found = load(text + "plugins: [{type: queue-scorer}]\n")
    assert note in found.notes
    assert found.warnings == ()


def test_members_that_cannot_act_in_a_profile_are_noted(load: Load) -> None:
    found = load(
        "plugins: [{type: queue-scorer}, {type: tokenizer}, {type: random-picker}]\n"
        "schedulingProfiles:\n- name: p\n  plugins:\n  - pluginRef: tokenizer\n  - pluginRef: queue-scorer\n"
        "  - {pluginRef: random-picker, weight: 3}\n  - pluginRef: queue-scorer\n"
    )
    assert "line 5: schedulingProfiles[p]: 'tokenizer' is neither filter, scorer nor picker; it has no effect here" in (
        found.notes
    )
    assert "line 7: schedulingProfiles[p]: the weight of 'random-picker' has no effect; it is no scorer" in found.notes
    assert found.warnings == ("line 8: schedulingProfiles[p] has scorer 'queue-scorer' twice; both weights count",)


def test_an_unused_discovery_is_a_warning(load: Load) -> None:
    found = load("plugins: [{type: file-discovery, parameters: {path: x}}]\n")
    assert found.warnings == (
        "line 1: plugin 'file-discovery' (file-discovery) has no effect; dataLayer.discovery does not name it",
    )


def test_a_file_is_its_own_source(tmp_path: object, catalog: Catalog) -> None:
    path = f"{tmp_path}/c.yaml"
    with open(path, "w") as file:
        file.write("\ufeffplugins: [{type: queue-scorer}]\n")
    assert load_file(path, catalog).source == path
