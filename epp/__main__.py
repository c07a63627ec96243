# SPDX-License-Identifier: Apache-2.0
"""`python -m epp` is the command `epp`."""

import sys

from epp.cli import main

sys.exit(main())
