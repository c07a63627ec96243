# SPDX-License-Identifier: Apache-2.0
"""What a simulated pod says: verses about clouds, the same for the same seed and prompt.

Plain ASCII, so that four characters are four bytes are one token, in the output as in the prompt.
"""

from __future__ import annotations

import random

from epp.local.sim.blocks import TOKEN_BYTES

_OPENINGS = (
    "The morning clouds",
    "A line of cumulus",
    "Grey rain-heavy towers",
    "The high thin cirrus",
    "One small white cloud",
    "The evening stratus",
    "A drifting shadow",
    "The storm's wide shelf",
)
_MOTIONS = (
    "comes slowly over the hill",
    "leans on the shoulder of the wind",
    "forgets the shape it had",
    "gathers the light of the river",
    "crosses the field without a sound",
    "breaks into wool and feathers",
    "waits above the harbour",
    "carries the sea to the mountains",
)
_ENDINGS = (
    "and nobody asks it why.",
    "and the swallows fly lower.",
    "until the sun finds a door.",
    "as if it had all day.",
    "and leaves a blue room behind.",
    "then turns to gold, then ash.",
    "and the grass goes dark and bright.",
    "and is gone before we name it.",
)


def compose(seed: int, key: str, tokens: int) -> str:
    """Verses of at least `tokens` tokens that end with a full line; `seed` and `key` decide which."""
    rng = random.Random(f"{seed}/{key}")
    lines: list[str] = []
    length = 0
    while length < tokens * TOKEN_BYTES:
        stanza_end = "\n" if len(lines) % 4 == 3 else ""
        lines.append(f"{rng.choice(_OPENINGS)} {rng.choice(_MOTIONS)},\n{rng.choice(_ENDINGS)}\n{stanza_end}")
        length += len(lines[-1])
    return "".join(lines).rstrip("\n")


def count_tokens(text: bytes) -> int:
    """Tokens of `text`; a part of a token counts as one."""
    return -(-len(text) // TOKEN_BYTES)
