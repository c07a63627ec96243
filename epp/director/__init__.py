# SPDX-License-Identifier: Apache-2.0
"""The life of one request; `life.py` is the file to read first."""

from epp.director.director import Director
from epp.director.life import Life
from epp.director.plan import Plan, Settings

__all__ = ["Director", "Life", "Plan", "Settings"]
