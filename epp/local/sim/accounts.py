# SPDX-License-Identifier: Apache-2.0
"""What became of every request to generate, per model, exactly: for tests that add up both sides of a gateway.

Invariant: `begun == answered + rejected + faulted + aborted + open`. Tokens are those of answered requests, as their
usage told them; what was generated for others is `lost_output_tokens`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Literal

Fate = Literal["answered", "rejected", "faulted", "aborted"]

UNKNOWN = ""
"""Where requests are counted whose model is not served here, or could not be read."""


@dataclass(slots=True)
class Account:
    """Counts of requests and tokens.

    answered: the whole answer was handed to the system. rejected: a 4xx of our own. faulted: answered with an error
    or cut off because a fault said so. aborted: the client went away, also while we hung. open: none of these yet.
    """

    begun: int = 0
    answered: int = 0
    rejected: int = 0
    faulted: int = 0
    aborted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    lost_output_tokens: int = 0

    @property
    def open(self) -> int:
        """Requests whose end has not come."""
        return self.begun - self.answered - self.rejected - self.faulted - self.aborted

    def told(self) -> dict[str, int]:
        """As JSON tells it."""
        return {**asdict(self), "open": self.open}


@dataclass(slots=True)
class Entry:
    """One request on its way. `fate` is settled once; the first word counts."""

    model: str = UNKNOWN
    fate: Fate | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def settle(self, fate: Fate) -> None:
        """Say how it ended, unless that has been said."""
        if self.fate is None:
            self.fate = fate


class Accounts:
    """Books by model. `begin` and `end` bracket a request."""

    def __init__(self, models: tuple[str, ...]) -> None:
        self._by_model = {model: Account() for model in (*models, UNKNOWN)}
        self._open = 0

    def begin(self) -> Entry:
        """A request has come; its model may be told later, until `end`."""
        self._open += 1
        return Entry()

    def end(self, entry: Entry) -> None:
        """The request is over; without another word it was aborted."""
        self._open -= 1
        account = self._by_model[entry.model if entry.model in self._by_model else UNKNOWN]
        account.begun += 1
        fate = entry.fate or "aborted"
        setattr(account, fate, getattr(account, fate) + 1)
        if fate == "answered":
            account.prompt_tokens += entry.prompt_tokens
            account.cached_tokens += entry.cached_tokens
            account.output_tokens += entry.output_tokens
        else:
            account.lost_output_tokens += entry.output_tokens

    def total(self) -> Account:
        """All models together, open requests included."""
        total = Account(begun=self._open)
        for account in self._by_model.values():
            for field in fields(Account):
                setattr(total, field.name, getattr(total, field.name) + getattr(account, field.name))
        return total

    def by_model(self) -> dict[str, Account]:
        """Ended requests by model; the unknown model is there only when it was asked for."""
        return {model: account for model, account in self._by_model.items() if model or account.begun}
