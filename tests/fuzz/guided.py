# SPDX-License-Identifier: Apache-2.0
"""Fuzzing one target with coverage guidance: `python -m tests.fuzz.guided NAME CORPUS [libFuzzer flags]`.

A process of its own, because atheris instruments the code as it is imported and libFuzzer ends the process. What it
finds worth keeping goes to the directory CORPUS, which begins with the target's seeds.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path


def main(argv: list[str]) -> None:
    """Run until a flag of libFuzzer (`-max_total_time`) or a failure ends it."""
    import atheris

    name, corpus, *flags = argv
    with atheris.instrument_imports(include=["epp"], enable_loader_override=False):
        from tests.fuzz.registry import load

        target = load(name)
    directory = Path(corpus)
    directory.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (directory / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    words = directory.with_suffix(".words")
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if len(word) <= 60))
    atheris.Setup([f"tests.fuzz.guided {name}", *flags, f"-dict={words}", corpus], target.make())
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main(sys.argv[1:])
