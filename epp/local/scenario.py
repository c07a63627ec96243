# SPDX-License-Identifier: Apache-2.0
"""The requests that `epp up` sends: few, and each shows something of how the picker chooses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"

TUTORIAL_BODY: Mapping[str, Any] = {
    "model": MODEL,
    "messages": [
        {"role": "system", "content": "You are a poet."},
        {"role": "user", "content": "Write a poem about clouds."},
    ],
}
"""The request of KServe's tutorial; sent with the header `x-user-id: user123`."""

_STATIONS = ("Harbour", "Ridge", "Airfield", "Old Mill", "Lighthouse", "Pass")
_SKIES = ("clear", "cirrus", "altocumulus", "stratus", "cumulus", "nimbostratus", "fog")
_QUESTIONS = (
    "Which station saw fog first?",
    "When was the sky over the Ridge last clear?",
    "Summarise the week in two sentences.",
    "Which two stations agree most often?",
)
_SUBJECTS = ("rain on a tin roof", "a slow river", "the first snow", "a lighthouse at night", "wind in tall grass")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: what to call it, where it goes, its JSON body."""

    title: str
    path: str
    body: Mapping[str, Any]

    @property
    def stream(self) -> bool:
        """The answer comes as a stream."""
        return bool(self.body.get("stream"))


def groups(count: int) -> list[list[Ask]]:
    """`count` requests. Those of one group are sent at the same time, the groups one after the other."""
    chosen: list[list[Ask]] = []
    for group in _all_groups():
        if count <= 0:
            break
        chosen.append(group[:count])
        count -= len(group)
    return chosen


def _all_groups() -> Iterator[list[Ask]]:
    poem = Ask("chat, the tutorial's poem", CHAT_PATH, TUTORIAL_BODY)
    yield [poem]
    yield [Ask(f"{poem.title} again", CHAT_PATH, TUTORIAL_BODY)]
    yield [Ask(f"{poem.title} again", CHAT_PATH, TUTORIAL_BODY)]
    for turn in itertools.count():
        subjects = [_SUBJECTS[(turn + i) % len(_SUBJECTS)] for i in range(5)]
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        yield [Ask(f"chat, streamed, {subjects[0]}", CHAT_PATH, {**_poem(subjects[0], turn), **streamed})]
        for number in range(3):
            question = _QUESTIONS[(turn + number) % len(_QUESTIONS)]
            yield [Ask(f"chat, long shared beginning, question {number + 1}", CHAT_PATH, _question(question, turn))]
        prompt = f"The weather report, day {turn + 1}. " + _log(turn)[:400]
        body = {"model": MODEL, "prompt": prompt, "max_tokens": 32}
        yield [Ask("completion, plain text", COMPLETIONS_PATH, body)]
        yield [Ask(f"chat, four at once, {s}", CHAT_PATH, _poem(s, turn)) for s in subjects[1:5]]


def _poem(subject: str, turn: int) -> dict[str, Any]:
    content = f"Write poem number {turn + 1} about {subject}. Four lines, no rhymes, and name a colour in each line."
    return {"model": MODEL, "messages": [{"role": "user", "content": content}]}


def _question(question: str, turn: int) -> dict[str, Any]:
    system = "You answer questions about this log of cloud observations.\n" + _log(turn)
    return {
        "model": MODEL,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
    }


def _log(turn: int) -> str:
    lines = []
    for hour in range(0, 48, 2):
        sky = _SKIES[(hour * 5 + turn * 3) % len(_SKIES)]
        station = _STATIONS[(hour // 2 + turn) % len(_STATIONS)]
        lines.append(f"day {turn + hour // 24 + 1}, {hour % 24:02d}:00, station {station}: {sky}, {hour * 7 % 9} oktas")
    return "\n".join(lines)
