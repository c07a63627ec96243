# SPDX-License-Identifier: Apache-2.0
"""The shapes of request bodies, read once, typed, only the fields that routing needs.

msgspec skips everything else without building it. Fields a client may fill loosely (`stream`, limits) are read as they
are and taken only when they have the right type, as the Go EPP does. Texts of errors are the Go EPP's
(reference: OpenAI parser of llm-d-router), followed by what was wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from epp.contract.errors import BadRequest
from epp.requests import countless
from epp.requests.countless import TOKENS_LIMIT, is_countless
from epp.requests.prompts import chat_stream, json_stream, text_stream, token_stream


class Common(msgspec.Struct):
    """What bodies of all APIs have."""

    model: Any = None
    stream: Any = None
    cache_salt: Any = None


class _Message(msgspec.Struct):
    role: str = ""
    content: str | list[dict[str, Any]] | None = None


class _Chat(Common):
    messages: list[_Message] | None = None
    tools: msgspec.Raw = msgspec.Raw()
    max_tokens: Any = None
    max_completion_tokens: Any = None


class _Completion(Common):
    prompt: str | list[Any] | None = None
    max_tokens: Any = None


class _Embedding(Common):
    input: msgspec.Raw = msgspec.Raw()


class _Response(Common):
    input: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    max_output_tokens: Any = None


class _Conversation(Common):
    items: msgspec.Raw = msgspec.Raw()


class _Image(Common):
    prompt: Any = None


class Parsed(msgspec.Struct, frozen=True):
    """What routing needs of a body. `prompts`: u32 streams, see `epp.contract.requests`."""

    model: str
    stream: bool
    prompts: tuple[bytes, ...]
    cache_salt: str
    max_output_tokens: int | None


Reader = Callable[[bytes], Parsed]

_chat = msgspec.json.Decoder(_Chat)
_completion = msgspec.json.Decoder(_Completion)
_embedding = msgspec.json.Decoder(_Embedding)
_response = msgspec.json.Decoder(_Response)
_conversation = msgspec.json.Decoder(_Conversation)
_image = msgspec.json.Decoder(_Image)


MOST_PROMPTS = 2048
"""More of them in one body are followed as one, by their JSON."""


def read_chat(body: bytes) -> Parsed:
    """A chat completion."""
    if is_countless(body):
        return read_countless(body, "messages", "invalid chat completions request: must have valid messages field")
    chat = decode(_chat, body, "invalid chat completions request: must have valid messages field")
    if not chat.messages:
        raise BadRequest("invalid chat completions request: must have valid messages field")
    stream = chat_stream(bytes(chat.tools), ((m.role, m.content) for m in chat.messages))
    return parsed(chat, (stream,), chat.max_completion_tokens or chat.max_tokens)


def read_completion(body: bytes) -> Parsed:
    """A completion: one text, several, or token ids."""
    if is_countless(body, TOKENS_LIMIT):
        return read_countless(body, "prompt", "invalid completions request: must have prompt field")
    completion = decode(_completion, body, "invalid completions request: must have prompt field")
    prompt = completion.prompt
    if prompt is None:
        raise BadRequest("invalid completions request: must have prompt field")
    return parsed(completion, _prompt_streams(prompt), completion.max_tokens)


def _prompt_streams(prompt: str | list[Any]) -> tuple[bytes, ...]:
    """One text, one list of token ids, or a list of either."""
    if isinstance(prompt, str):
        return (text_stream(prompt),)
    try:
        if prompt and isinstance(prompt[0], int):
            return (token_stream(prompt),)
        if len(prompt) > MOST_PROMPTS:
            return (text_stream(msgspec.json.encode(prompt)),)
        return tuple(text_stream(p) if isinstance(p, str) else token_stream(p) for p in prompt)
    except (TypeError, ValueError, OverflowError):
        raise BadRequest(
            "invalid completions request: must have prompt field: a string, token ids, or a list of either"
        ) from None


def read_embedding(body: bytes) -> Parsed:
    """An embedding: whatever the input is, its JSON is the prompt."""
    if is_countless(body):
        return read_countless(body, "input", "invalid embeddings request: must have input field")
    embedding = decode(_embedding, body, "invalid embeddings request: must have input field")
    return parsed(embedding, (_required(embedding.input, "embeddings", "input"),), None)


def read_response(body: bytes) -> Parsed:
    """A response of the Responses API."""
    if is_countless(body):
        return read_countless(body, "input", "invalid responses request: must have input field")
    response = decode(_response, body, "invalid responses request: must have input field")
    _required(response.input, "responses", "input")
    parts = (("instructions", response.instructions), ("tools", response.tools), ("input", response.input))
    stream = json_stream([(name, bytes(raw)) for name, raw in parts if _given(raw)])
    return parsed(response, (stream,), response.max_output_tokens)


def read_conversation(body: bytes) -> Parsed:
    """A conversation: its items' JSON is the prompt."""
    if is_countless(body):
        return read_countless(body, "items", "invalid conversations request: must have items field")
    conversation = decode(_conversation, body, "invalid conversations request: must have items field")
    return parsed(conversation, (_required(conversation.items, "conversations", "items"),), None)


def read_image(body: bytes) -> Parsed:
    """An image generation; there is no prefix cache to follow, so no prompt stream."""
    if is_countless(body):
        return read_countless(body, "prompt", "invalid images generations request: must have prompt field")
    image = decode(_image, body, "invalid images generations request: must have prompt field")
    if not isinstance(image.prompt, str) or not image.prompt:
        raise BadRequest("invalid images generations request: must have prompt field")
    return parsed(image, (), None)


def read_countless(body: bytes, field: str, wrong_shape: str) -> Parsed:
    """A body of very many values: its prompt is the JSON of `field`. Raises `BadRequest`."""
    found = decode(countless.decoder, body, wrong_shape)
    stream = text_stream(countless.required(getattr(found, field), wrong_shape))
    return Parsed(
        model=_model(countless.model_of(found.model)),
        stream=bytes(found.stream) == b"true",
        prompts=(stream,),
        cache_salt=countless.text_of(found.cache_salt) or "",
        max_output_tokens=None,
    )


def parsed(body: Common, prompts: tuple[bytes, ...], limit: Any) -> Parsed:
    """What routing needs of `body`. Raises `BadRequest` where it names no model."""
    return Parsed(
        model=_model(body.model),
        stream=body.stream is True,
        prompts=prompts,
        cache_salt=body.cache_salt if isinstance(body.cache_salt, str) else "",
        max_output_tokens=limit if isinstance(limit, int) else None,
    )


def _model(given: object) -> str:
    if given is None or given == "":
        raise BadRequest("model not found in request body; add the field `model` with the model's name")
    if not isinstance(given, str):
        raise BadRequest("model in request body is not a string; set the field `model` to the model's name")
    return given


_NO_NUMBER = "Number out of range"
"""How msgspec begins the error for a number like 1e999, in whatever field."""


def decode(decoder: Any, body: bytes, wrong_shape: str) -> Any:
    """The body by `decoder`. Raises `BadRequest`, with `wrong_shape` where it is JSON of another shape."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        if not str(error).startswith(_NO_NUMBER):
            raise BadRequest(f"{wrong_shape} ({error})") from None
        raise BadRequest(f"error unmarshaling request bodyMap: {error}; send a number that JSON can hold") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"error unmarshaling request bodyMap: {error}; send the body as one JSON object") from None
    except RecursionError:
        raise BadRequest("error unmarshaling request bodyMap: the JSON is nested too deeply") from None


def _given(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in (b"", b"null")


def _required(raw: msgspec.Raw, what: str, name: str) -> bytes:
    if not _given(raw):
        raise BadRequest(f"invalid {what} request: must have {name} field")
    return text_stream(bytes(raw))
