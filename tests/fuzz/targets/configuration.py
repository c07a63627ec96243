# SPDX-License-Identifier: Apache-2.0
"""Configurations of every era, YAML and JSON.

* Loading gives a `Configuration` or raises a `ConfigErrors`; every mistake, warning and note is one line.
* What loads is assembled, or refused with a `ConfigErrors`; what is assembled becomes a plan that can be shown, and
  settings for scraping, or a `ConfigError`.
* Nodes are bounded, aliases expanded.
"""

from __future__ import annotations

import json

import orjson
import yaml

from epp.config.build import assemble
from epp.config.catalog import collect
from epp.config.findings import ConfigErrors
from epp.config.load import decode, load_text
from epp.config.plan import plan_dict, plan_text
from epp.contract.errors import ConfigError
from epp.service.flags.parsing import parse as parse_flags
from epp.service.wiring import plan_of, scrape_settings_of
from tests.fuzz.harness import Input, Run, Target, no_error_logged, one_line


def _make() -> Run:
    catalog = collect(points=())
    options = parse_flags([], {})

    def run(data: bytes) -> None:
        source = Input(data)
        strict = bool(source.byte() & 1)
        try:
            text = decode(source.rest(), "test")
            configuration = load_text(text, catalog, source="test", strict=strict)
            for line in (*configuration.warnings, *configuration.notes):
                one_line(ConfigError(line))
            with no_error_logged():
                assembly = assemble(configuration, lambda: 0.0, 1)
                plan_text(assembly.configuration)
                orjson.dumps(plan_dict(assembly.configuration), default=str)
                plan_of(assembly, lambda: 0.0)
                scrape_settings_of(options, assembly.configuration)
        except ConfigErrors as error:
            one_line(error)
            assert error.mistakes
            for mistake in error.mistakes:
                one_line(ConfigError(mistake))
        except ConfigError as error:
            one_line(error)

    return run


_KSERVE = """\
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
  - type: single-profile-handler
  - type: prefix-cache-scorer
    parameters: {hashBlockSize: 5, maxPrefixBlocksToMatch: 256, lruCapacityPerServer: 31250}
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
_LLM_D = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl, "dataLayer=false"]
plugins:
- {name: p, type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 64, autoTune: false}}
- {name: q, type: queue-scorer}
- {type: weighted-random-picker, parameters: {threshold: 0.5}}
- type: core-metrics-extractor
  parameters: {defaultEngine: x, engineConfigs: [{name: x, queuedRequestsSpec: "q{a=b}"}]}
- {type: metrics-data-source, parameters: {scheme: https, path: /m, insecureSkipVerify: false}}
- {type: file-discovery, parameters: {path: /tmp/x, watchFile: true}}
- {type: openai-parser}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: q, weight: 2}, {pluginRef: weighted-random-picker}]
dataLayer:
  sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}]
  discovery: {pluginRef: file-discovery}
requestHandler: {parsers: [{pluginRef: openai-parser}]}
flowControl: {maxBytes: 1Gi, defaultRequestTTL: 30s, priorityBands: [{priority: 1, maxRequests: 2k}]}
saturationDetector: {queueDepthThreshold: 5, kvCacheUtilThreshold: 0.8, metricsStalenessThreshold: 200ms}
"""
_ALIASES = "plugins: &p\n- &q {type: queue-scorer}\n- {<<: *q, name: again}\nschedulingProfiles: []\nparser: {pluginRef: openai-parser}\n"


def _seeds() -> list[bytes]:
    texts = [
        "",
        _KSERVE,
        _LLM_D,
        _ALIASES,
        *(json.dumps(yaml.safe_load(text), indent="\t") for text in (_KSERVE, _LLM_D)),
    ]
    return [b"\0" + text.encode() for text in texts] + [b"\1" + _LLM_D.encode()]


_WORDS = (
    b"plugins:", b"type: ", b"name: ", b"parameters: ", b"schedulingProfiles:", b"pluginRef: ", b"weight: ", b"queue-scorer",
    b"prefix-cache-scorer", b"random-picker", b"max-score-picker", b"active-request-scorer", b"single-profile-handler",
    b"approx-prefix-cache-producer", b"- ", b"\n", b": ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"<<: ", b"!!int ", b"!x ",
    b"---\n", b"? ", b"1e999", b".nan", b"-1", b"9" * 400, b"0x" + b"f" * 70, b"[" * 70, b"1e-400", b"9223372036854775808",
    b'"\\ud800"', b'"\\ud83d\\ude00"', b"\xff", b"\t", b"~", b"yes", b"1Gi", b"1h", b"-5s", b"%TAG ! x:\n", b"\xc2\x85",
    b"maxNumOfEndpoints: ", b"blockSizeTokens: ", b"lruCapacityPerServer: ", b"threshold: ", b"999999999999999999",
)  # fmt: skip
TARGET = Target("configuration", _make, _seeds, _WORDS)
