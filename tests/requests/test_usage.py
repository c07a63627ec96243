# SPDX-License-Identifier: Apache-2.0
"""Usage out of JSON and SSE, wherever the chunks are cut (specification: server 2.7, plugins 2.9)."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from epp.contract.requests import Usage
from epp.requests.usage import LIMIT_BYTES, UsageReader

VLLM_JSON = (
    b'{"id":"chatcmpl-1","choices":[{"message":{"content":"a \\"usage\\": {\\"prompt_tokens\\":9}","role":"assistant"}}],'
    b'"kv_transfer_params":null,"usage":{"completion_tokens":178,"prompt_tokens":24,'
    b'"prompt_tokens_details":{"cached_tokens":16},"total_tokens":202},"prompt_logprobs":null}'
)
VLLM_SSE = (
    b'data: {"choices":[{"delta":{"content":"usage"}}],"usage":null}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":24,"total_tokens":202,"completion_tokens":178,'
    b'"prompt_tokens_details": {"cached_tokens" : 16}}}\n\ndata: [DONE]\n\n'
)
CONTINUOUS_SSE = b"".join(
    b'data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":24,"completion_tokens":%d,"total_tokens":%d,'
    b'"prompt_tokens_details":{"cached_tokens":16}}}\n\n' % (n, 24 + n)
    for n in range(1, 179)
)
ANTHROPIC_SSE = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":24,'
    b'"cache_read_input_tokens":16,"output_tokens":1}}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":178}}\n\n'
)
RESPONSES_SSE = (
    b'event: response.completed\ndata: {"type":"response.completed","response":{"usage":{"input_tokens":24,'
    b'"input_tokens_details":{"cached_tokens":16},"output_tokens":178,"total_tokens":202}}}\n\n'
)
STRINGS = (
    b'{"usage" : {"prompt_tokens":"24","completion_tokens":"178","total_tokens":"202",'
    b'"prompt_tokens_details":{"cached_tokens":"16"}}}'
)
EXPECTED = Usage(24, 178, 202, 16)
ANTHROPIC = Usage(24, 178, 202, 16, prompt_tokens_apart=16)


def read(*chunks: bytes) -> Usage | None:
    reader = UsageReader()
    for chunk in chunks:
        reader.feed(chunk)
    return reader.result()


ALL = [VLLM_JSON, VLLM_SSE, CONTINUOUS_SSE, ANTHROPIC_SSE, RESPONSES_SSE, STRINGS]


def said_by(body: bytes) -> Usage:
    """What each of `ALL` says; Anthropic counts the cached tokens apart."""
    return ANTHROPIC if body is ANTHROPIC_SSE else EXPECTED


@pytest.mark.parametrize("body", ALL)
def test_every_api_says_the_same(body: bytes) -> None:
    assert read(body) == said_by(body)


@pytest.mark.parametrize("body", ALL)
def test_one_byte_at_a_time(body: bytes) -> None:
    assert read(*(body[i : i + 1] for i in range(len(body)))) == said_by(body)


@given(st.sampled_from([VLLM_JSON, VLLM_SSE, ANTHROPIC_SSE, STRINGS]), st.lists(st.integers(0, 600), max_size=8))
def test_where_the_chunks_are_cut_does_not_matter(body: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(c, len(body)) for c in cuts), len(body)]
    assert read(*(body[a:b] for a, b in itertools.pairwise(edges))) == said_by(body)


OPENAI_FULL = (
    b'{"usage":{"prompt_tokens":24,"completion_tokens":178,"total_tokens":202,"prompt_tokens_details":{"cached_tokens":16,'
    b'"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":64,"audio_tokens":0}}}'
)
RESPONSES_FULL = (
    b'event: response.created\ndata: {"response":{"id":"r","usage":null}}\n\n'
    b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r","usage":{"input_tokens":24,'
    b'"input_tokens_details":{"cached_tokens":16},"output_tokens":178,"output_tokens_details":{"reasoning_tokens":64},'
    b'"total_tokens":202}}}\n\n'
)
ANTHROPIC_JSON = (
    b'{"type":"message","usage":{"input_tokens":24,"cache_creation_input_tokens":100,"cache_read_input_tokens":16,'
    b'"cache_creation":{"ephemeral_5m_input_tokens":100},"output_tokens":178,"service_tier":"standard"}}'
)
ANTHROPIC_FULL = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":24,"cache_creation_'
    b'input_tokens":100,"cache_read_input_tokens":16,"output_tokens":1}}}\n\n'
    b'event: content_block_delta\ndata: {"delta":{"text":"\\"usage\\":{\\"output_tokens\\":0}"}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":178}}\n\n'
)
DELTA = b'data: {"type":"message_delta","usage":{"input_tokens":24,"output_tokens":178}}\n\n'
EMBEDDINGS = b'{"object":"list","data":[{"embedding":[0.5]}],"usage":{"prompt_tokens":8,"total_tokens":8}}'
EMBEDDINGS_VLLM = b'{"usage":{"prompt_tokens":8,"total_tokens":8,"completion_tokens":0,"prompt_tokens_details":null}}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (OPENAI_FULL, Usage(24, 178, 202, 16, None, 64)),
        (RESPONSES_FULL, Usage(24, 178, 202, 16, None, 64)),
        (ANTHROPIC_JSON, Usage(24, 178, 202, 16, 100, None, 116)),
        (ANTHROPIC_FULL, Usage(24, 178, 202, 16, 100, None, 116)),
        (EMBEDDINGS, Usage(8, None, 8)),
        (EMBEDDINGS_VLLM, Usage(8, 0, 8)),
        # vLLM's message_start is a guess, message_delta has the counts.
        (
            b'data: {"message":{"usage":{"input_tokens":0,"output_tokens":0}}}\n\n%b' % DELTA,
            Usage(24, 178, 202),
        ),
        # A proxy that says both ways counts the cached ones in.
        (
            b'{"usage":{"prompt_tokens":24,"completion_tokens":1,"total_tokens":25,"cache_read_input_tokens":16}}',
            Usage(24, 1, 25, 16),
        ),
        (b'{"usage":{"input_tokens":24,"output_tokens":1,"total_tokens":25,"cache_read_input_tokens":16}}', Usage(24, 1, 25, 16)),
        (b'{"usage":{"prompt_tokens":24,"total_tokens":25,"prompt_tokens_details":{"cache_creation_tokens":5}}}', Usage(24, None, 25, None, 5)),
    ],
)  # fmt: skip
def test_what_each_api_tells_beyond_the_sums(body: bytes, expected: Usage) -> None:
    assert read(body) == expected
    assert read(*(body[i : i + 1] for i in range(len(body)))) == expected


REAL = b'"usage":{"input_tokens":24,"output_tokens":178}'


@pytest.mark.parametrize(
    "body",
    [
        # The input of a tool is JSON that the model writes, and the client tells the model what to write.
        b'{"content":[{"type":"tool_use","input":{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,'
        b'"cache_read_input_tokens":9}}}],' + REAL + b"}",
        b'{"content":[{"type":"tool_use","input":{"usage":{"a":"{{{{"}}}],' + REAL + b"}",
        b'{"content":[{"type":"tool_use","input":{"usage":{"a":"\\"{\\\\"}}}],' + REAL + b"}",
        b'{"tools":[{"parameters":{"properties":{"usage":{"type":"object"}}}}],' + REAL + b"}",
        b'{"usage":{"input_tokens":24,"output_tokens":178},"tools":[{"properties":{"usage":{"type":"object"}}}]}',
    ],
)
@pytest.mark.parametrize("step", [1, 5, 10_000])
def test_an_object_of_the_same_name_elsewhere_in_a_document_does_not_count(body: bytes, step: int) -> None:
    assert read(*(body[i : i + step] for i in range(0, len(body), step))) == Usage(24, 178, 202)


def test_tools_that_a_stream_echoes_do_not_count() -> None:
    echo = (
        b'data: {"response":{"tools":[{"usage":{"prompt_tokens":0,"cache_creation_input_tokens":9}}],"usage":null}}\n\n'
    )
    assert read(echo + RESPONSES_SSE) == EXPECTED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"usage":null}',
        b'{"usage":{}}',
        b'{"usage":[1]}',
        b'{"logprobs":["usage"],"x":1}',
        b'{"usage":{"prompt_tokens":-1,"completion_tokens":true,"total_tokens":"x"}}',
        b'{"usage":{"prompt_tokens":',
        b'{"usage":{broken}}',
        b'{"usage":{"a":"' + b"x" * (LIMIT_BYTES + 1) + b'"}',
        b"not json at all",
    ],
)
def test_no_usage_is_none_or_empty(body: bytes) -> None:
    found = read(body)
    assert found is None or found == Usage()


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b'"usage"', b":", b"{", b"}", b'"us', b'age"']), max_size=30))
@example([b'"usage"', b":", b"{" * 5000])
def test_any_bytes_in_any_pieces_never_raise_and_the_pieces_do_not_matter(chunks: list[bytes]) -> None:
    assert read(*chunks) == read(b"".join(chunks))


@pytest.mark.parametrize("step", [1, 7, 4096, 100_000])
def test_an_object_over_the_limit_is_given_up_and_a_later_one_is_found_however_it_is_cut(step: int) -> None:
    long = b'"usage":{"prompt_tokens":1,"a":"' + b"x" * LIMIT_BYTES + b'"},"b":"' + b"x" * LIMIT_BYTES + b'",'
    assert read(*(long[i : i + step] for i in range(0, len(long), step))) is None
    whole = b"{" + long + VLLM_JSON[1:]
    assert read(*(whole[i : i + step] for i in range(0, len(whole), step))) == EXPECTED


@pytest.mark.parametrize("value", [b'"' + b"9" * 4000 + b'"', b"[" * 1500 + b"]" * 1500, b"9" * 400, b"1e999"])
def test_what_no_count_can_be_is_left_out(value: bytes) -> None:
    found = read(b'{"usage":{"total_tokens":' + value + b"}}")
    assert found is None or found == Usage()


def test_braces_without_end_take_time_in_proportion() -> None:
    # Counting anew at every brace would take hours.
    assert read(b'"usage":' + b"{" * 2_000_000 + b"}" * 2_000_000) is None


def test_memory_is_bounded_whatever_passes() -> None:
    reader = UsageReader()
    for _ in range(1000):
        reader.feed(b'"usage":{"a":' + b"{" * 100)
        assert len(reader._tail) <= LIMIT_BYTES


COUNTS = st.one_of(
    st.integers(-2, 2**60), st.none(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["7", "x"]),
)  # fmt: skip
DETAILS = st.one_of(
    COUNTS,
    st.dictionaries(
        st.sampled_from(["cached_tokens", "audio_tokens", "reasoning_tokens", "cache_creation_tokens"]), COUNTS
    ),
)
USAGES = st.fixed_dictionaries(
    dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), COUNTS),
    optional={
        "prompt_tokens_details": DETAILS, "input_tokens_details": DETAILS, "completion_tokens_details": DETAILS,
        "output_tokens_details": DETAILS, "cache_read_input_tokens": COUNTS, "cache_creation_input_tokens": COUNTS,
        "input_tokens": COUNTS,
    },
)  # fmt: skip
IN_OPENAIS_FORM = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


@given(USAGES)
@example(IN_OPENAIS_FORM | {"input_tokens_details": {"cached_tokens": 4}})
@example(IN_OPENAIS_FORM | {"output_tokens_details": {"reasoning_tokens": 4}})
@example(IN_OPENAIS_FORM | {"prompt_tokens_details": {"cached_tokens": 4, "cache_creation_tokens": 5}})
@example(IN_OPENAIS_FORM | {"prompt_tokens_details": {"cached_tokens": 4}, "cache_read_input_tokens": 6})
def test_one_object_is_read_alike_on_the_short_way_and_on_the_long_one(usage: dict[str, object]) -> None:
    # An object in OpenAI's form has a short way of its own; one with an escape in it is read member by member.
    raw, long = json.dumps(usage), json.dumps({"\n": None} | usage)
    assert read(b'{"usage":%b}' % raw.encode()) == read(b'{"usage":%b}' % long.encode())
    twice = b'{"usage":%b,"x":{"usage":%b}}' % (raw.encode(), raw.encode())
    assert read(b'{"usage":%b}' % raw.encode()) == read(twice)
