# SPDX-License-Identifier: Apache-2.0
"""The worst inputs there are for each target, and what they may cost: `python -m tests.fuzz.worst [NAME]`.

Every case runs in a process of its own, forked from this one after everything is imported, so that the growth of its
peak of resident memory is the case's alone. It is ended when its time is up. One line of JSON for each case on standard
output: name, grown_mib, seconds, and error, which is null when the case ended as it should.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """* prepare: makes the input, and returns what is to be measured
    * most_mib: how much the resident memory may grow over the input itself; most_s: seconds of a machine with little
      else to do
    """

    name: str
    prepare: Callable[[], Callable[[], object]]
    most_mib: float
    most_s: float


PATIENCE = 12.0
"""How many times its own time a case gets before it is ended: the tests' machine may be busy."""


def measure(case: Case) -> dict[str, object]:
    """Run one case in a child process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        with os.fdopen(writer, "w") as out:
            json.dump(_run(case), out)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        text = told.read()
    _, status = os.waitpid(child, 0)
    if text:
        result: dict[str, object] = json.loads(text)
        return result
    return {"name": case.name, "grown_mib": 0.0, "seconds": 0.0, "error": f"ended by signal {status & 0x7F}"}


def _run(case: Case) -> dict[str, object]:
    error = None
    grown_mib = seconds = 0.0
    try:
        run = case.prepare()
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(case.most_s * PATIENCE) + 1)
        began_s = time.process_time()
        run()
        seconds = time.process_time() - began_s
        signal.alarm(0)
        grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    except Exception:
        error = traceback.format_exc()
    return {"name": case.name, "grown_mib": grown_mib, "seconds": seconds, "error": error}


def main(names: list[str]) -> None:
    """Run the cases called `names`, or all."""
    from tests.fuzz.worst_cases import CASES

    for case in CASES:
        if not names or case.name in names:
            print(json.dumps(measure(case)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
