# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with rate limits, as one line each."""

from __future__ import annotations

from epp.contract.errors import ConfigError, EppError


class RulesError(ConfigError):
    """A file of rate limit rules cannot be used: `source: line N: what; remedy`."""


class LedgerError(ConfigError):
    """The place of the counters cannot be used as it is configured."""


class BadCall(EppError):
    """A caller's request breaks the protocol (INVALID_ARGUMENT)."""


class NotReady(EppError):
    """No rules are installed yet (UNAVAILABLE)."""


class LedgerAway(EppError):
    """The counters cannot be asked now, and the configuration says that this is an error (UNAVAILABLE)."""
