# SPDX-License-Identifier: Apache-2.0
"""`python -m epp.local.sim`: the same as `epp sim-pod`, without loading anything else of the package."""

from __future__ import annotations

import sys

from epp.local.sim.command import main

sys.exit(main(sys.argv[1:]))
