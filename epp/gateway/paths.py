# SPDX-License-Identifier: Apache-2.0
"""The paths that name a model in their body: those of Envoy AI Gateway (OpenAI's, Cohere's, Anthropic's), and those
that vLLM has besides. Every other path is answered with 404 before it can reach an engine."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

import msgspec

MODELS = "/v1/models"


class Form(enum.Enum):
    """How the body says the model."""

    JSON = "json"
    MULTIPART = "multipart"
    """A form with a field `model` (files are uploaded beside it)."""


class Api(msgspec.Struct, frozen=True, gc=False):
    """One path. `path` has no prefix; `anthropic`: its errors have Anthropic's shape; `tells_usage`: its answers say
    what tokens they took."""

    path: str
    form: Form = Form.JSON
    anthropic: bool = False
    tells_usage: bool = True


_JSON = (
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/responses/input_tokens",
    "/v1/conversations", "/v1/images/generations", "/v1/audio/speech", "/v1/moderations", "/v1/rerank", "/v2/rerank",
    "/v2/embed", "/v1/score", "/rerank", "/score", "/pooling", "/classify", "/tokenize", "/detokenize",
)  # fmt: skip
_MULTIPART = ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits")
_ANTHROPIC = ("/v1/messages", "/v1/messages/count_tokens")
_SILENT = frozenset((
    "/v1/responses/input_tokens", "/v1/conversations", "/v1/audio/speech", "/v1/moderations", "/tokenize",
    "/detokenize", "/v1/messages/count_tokens",
))  # fmt: skip
"""Their answers say nothing of tokens, or are about nothing else."""
KNOWN: Mapping[str, Api] = {
    **{path: Api(path, tells_usage=path not in _SILENT) for path in _JSON},
    **{path: Api(path, Form.MULTIPART) for path in _MULTIPART},
    **{path: Api(path, anthropic=True, tells_usage=path not in _SILENT) for path in _ANTHROPIC},
}


class Paths:
    """The known paths behind every one of `prefixes` ("" is none)."""

    __slots__ = ("_models", "_posts", "_prefixes")

    def __init__(self, prefixes: Iterable[str] = ("",)) -> None:
        self._prefixes = tuple(prefixes)
        self._posts = {prefix + path: api for prefix in self._prefixes for path, api in KNOWN.items()}
        self._models = tuple(prefix + MODELS for prefix in self._prefixes)

    def api(self, path: str) -> Api | None:
        """What takes a POST on `path`, which has no query."""
        return self._posts.get(path)

    def asked_model(self, path: str) -> str | None:
        """The model that a GET of `path` asks about: "" for the list of all; None when it is another path."""
        for models in self._models:
            if path == models:
                return ""
            if path.startswith(models + "/"):
                return unquote(path[len(models) + 1 :])
        return None

    def anthropic(self, path: str) -> bool:
        """Whether errors on `path`, known or not, have Anthropic's shape."""
        return any(path.startswith(prefix + _ANTHROPIC[0]) for prefix in self._prefixes)
