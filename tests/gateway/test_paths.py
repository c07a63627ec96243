# SPDX-License-Identifier: Apache-2.0
"""Which paths are known."""

from __future__ import annotations

import pytest

from epp.gateway.paths import Form, Paths
from epp.requests.parser import OPENAI


def test_every_path_of_envoy_ai_gateway_is_known() -> None:
    paths = Paths()
    for path in (
        "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/responses/input_tokens",
        "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/generations", "/v2/rerank",
        "/v2/embed", "/v1/messages", "/tokenize",
    ):  # fmt: skip
        assert paths.api(path) is not None


def test_every_path_that_the_picker_reads_is_known() -> None:
    paths = Paths()
    assert [path for path in OPENAI if "render" not in path and paths.api(f"/v1/{path}") is None] == []


@pytest.mark.parametrize(
    "path", ["/", "", "/metrics", "/v1/load_lora_adapter", "/v1/chat/completions/", "/x/v1/chat/completions"]
)
def test_other_paths_are_not(path: str) -> None:
    assert Paths().api(path) is None
    assert Paths().asked_model(path) is None


def test_prefixes_stand_before_every_path() -> None:
    paths = Paths(["/openai", "/a/b"])
    assert paths.api("/v1/chat/completions") is None
    api = paths.api("/openai/v1/audio/transcriptions")
    assert api is not None
    assert (api.path, api.form) == ("/v1/audio/transcriptions", Form.MULTIPART)
    assert paths.asked_model("/a/b/v1/models") == ""
    assert paths.anthropic("/a/b/v1/messages/nonsense")
    assert not paths.anthropic("/v1/messages")


def test_a_model_is_asked_for_by_name_with_slashes_and_escapes() -> None:
    paths = Paths()
    assert paths.asked_model("/v1/models") == ""
    assert paths.asked_model("/v1/models/Qwen/Qwen2.5") == "Qwen/Qwen2.5"
    assert paths.asked_model("/v1/models/Qwen%2FQwen2.5") == "Qwen/Qwen2.5"
