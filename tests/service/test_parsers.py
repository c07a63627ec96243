# SPDX-License-Identifier: Apache-2.0
"""Which bodies are read under which `requestHandler.parsers`."""

from __future__ import annotations

import pytest

from epp.config.build import assemble
from epp.config.catalog import Catalog
from epp.config.load import load_text
from epp.contract.errors import BadRequest
from epp.requests.parser import Parser
from epp.service.wiring import plan_of
from epp.testing import FakeClock

BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'


def parser_of(*types: str) -> Parser:
    listed = ", ".join(f"{{pluginRef: {name}}}" for name in types)
    text = f"plugins: [{{type: random-picker}}]\nrequestHandler: {{parsers: [{listed}]}}\n" if types else ""
    clock = FakeClock()
    return plan_of(assemble(load_text(text, Catalog()), clock, 1), clock).parser


@pytest.mark.parametrize(
    ("types", "read"),
    [
        ((), {"chat/completions", "messages"}),
        (("openai-parser", "passthrough-parser"), {"chat/completions"}),
        (("anthropic-parser", "passthrough-parser"), {"messages"}),
        (("anthropic-parser", "openai-parser", "passthrough-parser"), {"chat/completions", "messages"}),
        (("passthrough-parser",), set()),
    ],
)
def test_each_parser_reads_its_api_and_the_rest_passes(types: tuple[str, ...], read: set[str]) -> None:
    parser = parser_of(*types)
    models = {path: parser.parse(f"/v1/{path}", BODY).model for path in ("chat/completions", "messages", "unknown")}
    assert {path for path, model in models.items() if model == "m"} == read


def test_without_pass_through_the_rest_is_refused() -> None:
    with pytest.raises(BadRequest, match="no parser registered matching path suffix for: /v1/messages"):
        parser_of("openai-parser").parse("/v1/messages", BODY)
