# SPDX-License-Identifier: Apache-2.0
"""Every mistake a configuration can hold, with its exact text, its line, what is allowed and the nearest known name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epp.config.catalog import Catalog, collect
from epp.config.findings import ConfigErrors
from epp.config.load import decode, load_text, read_text

Mistakes = Callable[..., list[str]]

FIELDS = (
    "apiVersion, kind, featureGates, plugins, schedulingProfiles, dataLayer, data, flowControl, requestHandler,"
    " saturationDetector, parser"
)
TYPES = ", ".join(collect(points=()).names())
GATES = "flowControl, haPopulateNonLeaderDatastore, dataLayer, prepareDataPlugins, enableLegacyMetrics"
QUEUE = "plugins: [{type: queue-scorer}]\n"

ENVELOPE = [
    ("- a", f'line 1: ["a"] is not a configuration; allowed: a mapping with {FIELDS}'),
    ("hello", f'line 1: "hello" is not a configuration; allowed: a mapping with {FIELDS}'),
    ("a: [", "line 1: not YAML: did not find expected node content"),
    ("kind: EndpointPickerConfig\npluginz: []\n",
     f"line 2: unknown field \"pluginz\"; did you mean 'plugins'? allowed: {FIELDS}"),
    ("metadata: {name: x}\n", f'line 1: unknown field "metadata"; allowed: {FIELDS}'),
    ("apiVersion: llm-d.ai/v1\n",
     ('line 1: no kind "EndpointPickerConfig" is registered for apiVersion "llm-d.ai/v1"; did you mean'
     " 'llm-d.ai/v1alpha1'? allowed: llm-d.ai/v1alpha1, inference.networking.x-k8s.io/v1alpha1")),
    ("kind: EndpointPickerConfigs\n", ('line 1: no kind "EndpointPickerConfigs" is registered; did you mean'
     " 'EndpointPickerConfig'? allowed: EndpointPickerConfig")),
    ("plugins: {type: queue-scorer}\n", 'line 1: plugins: {"type": "queue-scorer"} is not a list; allowed: a list'),
    ("plugins: [queue-scorer]\n",
     'line 1: plugins[0]: "queue-scorer" is not a mapping; allowed: a mapping with type, name, parameters'),
    ("plugins:\n- type: queue-scorer\n  parameter: {}\n",
     "line 3: plugins[0]: unknown field \"parameter\"; did you mean 'parameters'? allowed: type, name, parameters"),
    (f"{QUEUE}schedulingProfiles:\n- name: 5\n", ("line 3: schedulingProfiles[0].name: 5 is not a string; allowed: a"
     " string")),
    (f"{QUEUE}schedulingProfiles:\n- name: p\n  plugins:\n  - pluginRef: queue-scorer\n    weight: heavy\n",
     'line 6: schedulingProfiles[0].plugins[0].weight: "heavy" is not a number; allowed: a number'),
]  # fmt: skip

PLUGINS = [
    ("plugins:\n- name: mine\n", f"line 2: plugin 'mine' is missing a type; allowed: {TYPES}"),
    ("plugins:\n- {}\n", f"line 2: plugins[0] is missing a type; allowed: {TYPES}"),
    ("plugins:\n- type: queue-scorer\n- type: queue-scorer\n",
     "line 3: duplicate plugin name 'queue-scorer', first on line 2; give one of them another name"),
    ("plugins:\n- type: queue-scorer\n- type: random-picker\n  name: queue-scorer\n",
     "line 4: duplicate plugin name 'queue-scorer', first on line 2; give one of them another name"),
    ("plugins:\n- type: queue-scoree\n",
     f"line 2: plugin type 'queue-scoree' is not registered; did you mean 'queue-scorer'? allowed: {TYPES}; --plugin-dir adds more"),
    ("plugins:\n- type: quantum\n", f"line 2: plugin type 'quantum' is not registered; allowed: {TYPES}; --plugin-dir adds more"),
]  # fmt: skip

PROFILES = [
    (f"{QUEUE}schedulingProfiles:\n- plugins: [{{pluginRef: queue-scorer}}]\n",
     "line 3: schedulingProfiles[0] is missing a name"),
    (f"{QUEUE}schedulingProfiles:\n- name: p\n- name: p\n",
     "line 4: schedulingProfiles[1] has duplicate name 'p', first on line 3"),
    (f"{QUEUE}schedulingProfiles:\n- name: p\n  plugins:\n  - weight: 1\n",
     "line 5: schedulingProfiles[p].plugins[0] is missing a 'pluginRef'; allowed: queue-scorer"),
    (f"{QUEUE}schedulingProfiles:\n- name: p\n  plugins:\n  - pluginRef: queue-scoree\n",
     ("line 5: schedulingProfiles[p] references undefined plugin 'queue-scoree'; did you mean 'queue-scorer'? allowed:"
     " queue-scorer")),
    (("plugins:\n- type: random-picker\n- type: max-score-picker\nschedulingProfiles:\n- name: p\n  plugins:\n"
     "  - pluginRef: random-picker\n  - pluginRef: max-score-picker\n"),
     ("line 8: schedulingProfiles[p]: failed to set 'max-score-picker' as picker, already have 'random-picker'; keep"
     " one picker in a profile")),
    ("plugins:\n- type: random-picker\n- type: max-score-picker\n",
     ("line 3: schedulingProfiles[default]: failed to set 'max-score-picker' as picker, already have 'random-picker';"
     " keep one picker in a profile")),
    ("plugins:\n- {type: single-profile-handler}\n- {type: single-profile-handler, name: b}\n- type: queue-scorer\n",
     "line 3: multiple profile handlers found: single-profile-handler, b; keep one"),
    (f"{QUEUE}schedulingProfiles:\n- name: p\n- name: q\n",
     "no profile handler configured; 2 profiles (p, q) need one that chooses between them"),
    ("plugins:\n- type: single-profile-handler\nschedulingProfiles:\n- name: p\n- name: q\n",
     ("line 2: plugin 'single-profile-handler' (single-profile-handler) runs exactly one profile, but there are 2: p,"
     " q; keep one or use another profile handler")),
]  # fmt: skip

SECTIONS = [
    (f"{QUEUE}featureGates:\n- flowControls\n",
     f"line 3: feature gate 'flowControls' is unknown or unregistered; did you mean 'flowControl'? allowed: {GATES}"),
    (f"{QUEUE}featureGates:\n- flowControl=maybe\n",
     "line 3: feature gate 'flowControl': \"maybe\" is not a boolean; allowed: true or false"),
    (f"{QUEUE}featureGates: [5]\n",
     "line 2: featureGates[0]: 5 is not a string; allowed: a name or name=true|false"),
    (f"{QUEUE}dataLayer: {{injectDefaults: false}}\n",
     ("line 1: plugin 'queue-scorer' (queue-scorer): no default producer found for missing data key WaitingQueueSize;"
     " list 'core-metrics-extractor' as an extractor of a data source in dataLayer.sources, or leave out"
     " injectDefaults and sources")),
    (f"{QUEUE}dataLayer: {{sources: [{{pluginRef: queue-scorer}}]}}\n",
     "line 2: dataLayer.sources[0]: 'queue-scorer' (queue-scorer) is not a data source; allowed: none"),
    (("plugins: [{type: queue-scorer}, {type: metrics-data-source}, {type: core-metrics-extractor}]\ndataLayer:\n"
     "  sources:\n  - pluginRef: metrics-data-source\n    extractors:\n    - pluginRef: core-metrics-extractor\n"
     "    - pluginRef: metrics-data-source\n"),
     ("line 7: dataLayer.sources[0].extractors[1]: 'metrics-data-source' (metrics-data-source) is not an extractor;"
     " allowed: core-metrics-extractor")),
    (f"{QUEUE}dataLayer: {{discovery: {{pluginRef: files}}}}\n",
     "line 2: dataLayer.discovery references undefined plugin 'files'; allowed: none"),
    (f"{QUEUE}dataLayer: {{discovery: {{}}}}\n",
     "line 2: dataLayer.discovery is missing a 'pluginRef'; allowed: none"),
    (f"{QUEUE}dataLayer: {{discovery: {{pluginRef: queue-scorer}}}}\n",
     "line 2: dataLayer.discovery: 'queue-scorer' (queue-scorer) does not discover endpoints; allowed: none"),
    (f"{QUEUE}dataLayer: {{peerDiscovery: {{pluginRef: peers}}}}\n",
     "line 2: dataLayer.peerDiscovery references undefined plugin 'peers'; allowed: none"),
    (f"{QUEUE}dataLayer: {{crossReplicaSyncerPluginRef: sync}}\n",
     "line 2: dataLayer.crossReplicaSyncerPluginRef references undefined plugin 'sync'; allowed: none"),
    (f"{QUEUE}dataLayer: {{crossReplicaSyncInterval: 5}}\n",
     ("line 2: dataLayer.crossReplicaSyncInterval: 5 is not a duration; allowed: a duration, not negative, such as"
     ' "500ms" or "1m30s"')),
    (f"{QUEUE}data: {{}}\ndataLayer: {{}}\n", "line 2: 'data' and 'dataLayer' are both given; keep 'dataLayer'"),
    (f"{QUEUE}requestHandler: {{parsers: [{{pluginRef: openai-parsr}}]}}\n",
     ("line 2: requestHandler.parsers[0] references undefined plugin 'openai-parsr'; did you mean 'openai-parser'?"
     " allowed: openai-parser, anthropic-parser, passthrough-parser")),
    (f"{QUEUE}parser: {{pluginRef: queue-scorer}}\n",
     ("line 2: parser: 'queue-scorer' (queue-scorer) is not a parser;"
      " allowed: openai-parser, anthropic-parser, passthrough-parser")),
    (f"{QUEUE}flowControl: {{maxBytes: -1}}\n",
     ("line 2: flowControl.maxBytes: -1 is not a quantity; allowed: a quantity, not negative, such as 5000, \"2k\" or"
     ' "1Gi"')),
    (f"{QUEUE}flowControl: {{maxRequests: 5x}}\n",
     ("line 2: flowControl.maxRequests: \"5x\" is not a quantity; allowed: a quantity, not negative, such as 5000,"
     ' "2k" or "1Gi"')),
    (f"{QUEUE}flowControl: {{defaultRequestTTL: soon}}\n",
     ('line 2: flowControl.defaultRequestTTL: "soon" is not a duration; allowed: a duration, not negative, such as'
     ' "500ms" or "1m30s"')),
    (f"{QUEUE}flowControl:\n  priorityBands:\n  - priority: 1\n  - priority: 1\n",
     "line 5: flowControl.priorityBands[1]: duplicate priority band 1, first on line 4"),
    (f"{QUEUE}flowControl:\n  defaultPriorityBand:\n    fairnessPolicyRef: fair\n",
     ("line 4: flowControl.defaultPriorityBand.fairnessPolicyRef references undefined plugin 'fair'; allowed:"
     " global-strict-fairness-policy")),
    (f"{QUEUE}flowControl:\n  usageLimitPolicyPluginRef: limit\n",
     ("line 3: flowControl.usageLimitPolicyPluginRef references undefined plugin 'limit'; allowed:"
     " static-usage-limit-policy")),
    (f"{QUEUE}flowControl:\n  saturationDetector:\n    pluginRef: utilization-detectr\n",
     ("line 4: flowControl.saturationDetector references undefined plugin 'utilization-detectr'; did you mean"
     " 'utilization-detector'? allowed: utilization-detector")),
    (f"{QUEUE}saturationDetector:\n  queueDepthThreshold: many\n",
     'line 3: saturationDetector.queueDepthThreshold: "many" is not an integer; allowed: an integer'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [*ENVELOPE, *PLUGINS, *PROFILES, *SECTIONS])
def test_each_mistake_alone(mistakes: Mistakes, text: str, expected: str) -> None:
    assert mistakes(text) == [expected]


LOAD_AWARE = "plugins:\n- type: load-aware-scorer\n  parameters:\n    "
SUBJECT = "plugin 'load-aware-scorer' (load-aware-scorer) parameters"
SOURCE = "plugins:\n- type: queue-scorer\n- type: metrics-data-source\n  parameters:\n    "
SOURCE_SUBJECT = "plugin 'metrics-data-source' (metrics-data-source) parameters"
EXTRACTOR = "plugins:\n- type: queue-scorer\n- type: core-metrics-extractor\n  parameters:\n    engineConfigs:\n    "
EXTRACTOR_SUBJECT = "plugin 'core-metrics-extractor' (core-metrics-extractor) parameters"

PARAMETERS = [
    (f"{LOAD_AWARE}threshold: abc\n", f'line 4: {SUBJECT}.threshold: "abc" is not an integer; allowed: an integer'),
    (f"{LOAD_AWARE}threshold: 1.5\n", f"line 4: {SUBJECT}.threshold: 1.5 is not an integer; allowed: an integer"),
    (f"{LOAD_AWARE}threshold: yes\n", f"line 4: {SUBJECT}.threshold: true is not an integer; allowed: an integer"),
    (f"{LOAD_AWARE}threshold: [1]\n", f"line 4: {SUBJECT}.threshold: [1] is not an integer; allowed: an integer"),
    (f"{LOAD_AWARE}threshold: 1\n    Threshold: 2\n",
     f'line 5: {SUBJECT}.Threshold: given twice, also as "threshold"'),
    ("plugins:\n- type: load-aware-scorer\n  parameters: 7\n",
     f"line 3: {SUBJECT}: 7 is not a mapping; allowed: a mapping with threshold"),
    (f"{SOURCE}port: 0\n", f"line 5: {SOURCE_SUBJECT}.port: 0 is not in range; allowed: an integer >= 1 and <= 65535"),
    (f"{SOURCE}scheme: htps\n",
     f"line 5: {SOURCE_SUBJECT}.scheme: \"htps\" is not known; did you mean 'https'? allowed: http, https"),
    (f"{SOURCE}scheme: 5\n", f"line 5: {SOURCE_SUBJECT}.scheme: 5 is not known; allowed: http, https"),
    (f"{SOURCE}path: metrics\n",
     f'line 5: {SOURCE_SUBJECT}.path: "metrics" is not in range; allowed: a string (matching ^/)'),
    (f"{SOURCE}insecureSkipVerify: 1\n",
     f"line 5: {SOURCE_SUBJECT}.insecureSkipVerify: 1 is not a boolean; allowed: true or false"),
    (f"{SOURCE}interval: 50\n",
     (f"line 5: {SOURCE_SUBJECT}.interval: 50 is not a duration; allowed: a duration, not negative, such as"
     ' "500ms" or "1m30s"')),
    (f"{SOURCE}clientCertPath: /x\n",
     f"line 5: {SOURCE_SUBJECT}: clientCertPath and clientKeyPath go together; give both or neither"),
    (f"{EXTRACTOR}- queuedRequestsSpec: x\n", f"line 6: {EXTRACTOR_SUBJECT}.engineConfigs[0].name: required"),
    (f"{EXTRACTOR}- name: sglang\n      kvUsageSpec: 'a{{b'\n",
     (f'line 7: {EXTRACTOR_SUBJECT}.engineConfigs[0].kvUsageSpec: "a{{b" is not a metric; allowed:'
     f' a metric such as "name" or "name{{label=value}}"')),
    (f"{EXTRACTOR}- name: default\n",
     (f"line 6: {EXTRACTOR_SUBJECT}.engineConfigs[0]: the engine name 'default' is reserved; use the engine's own"
     " name")),
    (f"{EXTRACTOR}- name: a\n    - name: a\n",
     f"line 5: {EXTRACTOR_SUBJECT}: engineConfigs has a more than once; give each engine once"),
    ("plugins:\n- type: queue-scorer\n- type: token-producer\n  parameters: {modelName: m, vllm: {url: u}}\n",
     ("line 4: plugin 'token-producer' (token-producer) parameters: modelName, vllm asks for a real tokenizer;"
     " allowed: the estimate back-end, so remove modelName, vllm")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), PARAMETERS)
def test_each_mistake_in_parameters(mistakes: Mistakes, text: str, expected: str) -> None:
    assert mistakes(text) == [expected]


def test_unknown_parameters_are_mistakes_when_strict(mistakes: Mistakes) -> None:
    assert mistakes(f"{LOAD_AWARE}treshold: 3\n", strict=True) == [
        f"line 4: {SUBJECT}: unknown parameter \"treshold\"; did you mean 'threshold'? allowed: threshold"
    ]
    nested = f"{EXTRACTOR}- name: a\n      kvUsage: b\n"
    assert mistakes(nested, strict=True)[0].startswith(
        f"line 7: {EXTRACTOR_SUBJECT}.engineConfigs[0]: unknown parameter \"kvUsage\"; did you mean 'kvUsageSpec'?"
    )


def test_all_mistakes_are_reported_in_the_order_of_their_lines(mistakes: Mistakes) -> None:
    found = mistakes(
        "kind: Pod\nplugins:\n- type: queue-scoree\n- type: load-aware-scorer\n  parameters: {threshold: a}\n"
        "featureGates: [x]\nschedulingProfiles:\n- name: p\n  plugins:\n  - pluginRef: queue-scoree\n"
        "  - pluginRef: nothing\n  - {pluginRef: load-aware-scorer, weight: b}\n"
    )
    assert [mistake.split(":")[0] for mistake in found] == [
        "line 1", "line 3", "line 5", "line 6", "line 11", "line 12",
    ]  # fmt: skip


def test_str_is_one_line_with_the_count(catalog: Catalog) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load_text("kind: Pod\nplugins: 5\n", catalog, source="c.yaml")
    assert str(caught.value) == (
        'c.yaml: line 1: no kind "Pod" is registered; allowed: EndpointPickerConfig (and 1 more mistake;'
        " `epp check` lists all)"
    )


def test_unreadable_files() -> None:
    with pytest.raises(ConfigErrors, match="/nowhere: cannot be read: No such file or directory; give a readable"):
        read_text("/nowhere")
    with pytest.raises(ConfigErrors, match="x: line 2: byte 0xff is not UTF-8; save the file as UTF-8"):
        decode(b"a: 1\nb: \xff\n", "x")
    with pytest.raises(ConfigErrors, match="x: the text is longer than 1048576 bytes; allowed: up to 1 MiB"):
        decode(b"#" * (1 << 20) + "\u00e9".encode()[:1], "x")


words = st.sampled_from(
    ["plugins", "type", "name", "parameters", "schedulingProfiles", "pluginRef", "weight", "queue-scorer", "dataLayer",
     "load-aware-scorer", "threshold", "prefix-cache-scorer", "max-score-picker", "featureGates", "flowControl",
     "requestHandler", "parsers", "sources", "extractors", "discovery", "data", "1", "-1.5", "null", "yes", "x"]
)  # fmt: skip
documents = st.recursive(
    words, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=5), max_leaves=25
)
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


@shared
@given(text=st.text() | documents.map(str))
def test_no_text_raises_anything_but_mistakes(catalog: Catalog, text: str) -> None:
    for strict in (False, True):
        try:
            load_text(text, catalog, strict=strict)
        except ConfigErrors as errors:
            assert errors.mistakes
            assert all("\n" not in mistake for mistake in errors.mistakes)


@shared
@given(data=st.binary())
def test_no_bytes_raise_anything_but_mistakes(catalog: Catalog, data: bytes) -> None:
    try:
        load_text(decode(data, "x"), catalog)
    except ConfigErrors as errors:
        assert errors.mistakes
