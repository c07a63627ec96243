# SPDX-License-Identifier: Apache-2.0
"""What a configuration and the flags decide about every request, resolved once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from epp.contract.plugins import (
    DoneHook,
    Producer,
    ResponseEndHook,
    ResponseHook,
    RoutedHook,
    SaturationDetector,
    UsageWish,
    UsageWisher,
)
from epp.contract.prefix import PREFIX_MATCH, PrefixMatch
from epp.contract.requests import DataKey
from epp.director.headers import DESTINATION
from epp.extproc import Watch
from epp.requests.parser import Parser
from epp.scheduling.guard import Guarded
from epp.scheduling.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Plan:
    """What a configuration asks for, resolved once when it is loaded.

    `prefix_key`: where the prefix match is published that tells a request's uncached tokens; `plugins`: all instances;
    `watch`: how much of a response somebody needs; `response_hooks`: those of `plugins` that want to see its headers,
    `end_hooks`: its end; `usage_wish`: the strongest of their wishes; `follows_ends`: somebody has a hook or a wish;
    `detector`: says when the sheddable are refused, None for never.
    """

    scheduler: Scheduler
    parser: Parser
    producers: Sequence[Guarded[Producer]] = ()
    routed_hooks: Sequence[Guarded[RoutedHook]] = ()
    done_hooks: Sequence[Guarded[DoneHook]] = ()
    prefix_key: DataKey[PrefixMatch] = PREFIX_MATCH
    plugins: Sequence[Guarded[Any]] = ()
    watch: Watch = Watch.BODY
    detector: Guarded[SaturationDetector] | None = None
    response_hooks: tuple[Guarded[ResponseHook], ...] = field(init=False)
    end_hooks: tuple[Guarded[ResponseEndHook], ...] = field(init=False)
    usage_wish: UsageWish = field(init=False)
    follows_ends: bool = field(init=False)

    def __post_init__(self) -> None:
        """Find who wants to see responses."""
        hooks = tuple(guarded for guarded in self.plugins if isinstance(guarded.plugin, ResponseHook))
        object.__setattr__(self, "response_hooks", hooks)
        ends = tuple(guarded for guarded in self.plugins if isinstance(guarded.plugin, ResponseEndHook))
        object.__setattr__(self, "end_hooks", ends)
        said = {guarded.plugin.usage_wish for guarded in self.plugins if isinstance(guarded.plugin, UsageWisher)}
        wishes = [wish for wish in UsageWish if wish in said]
        wish = wishes[-1] if wishes else UsageWish.NEVER
        object.__setattr__(self, "usage_wish", wish)
        object.__setattr__(self, "follows_ends", bool(ends) or wish is not UsageWish.NEVER)


@dataclass(frozen=True, slots=True)
class Settings:
    """What flags decide about every request. `metadata_namespace` "" puts the destination at the top level."""

    destination_header: str = DESTINATION
    metadata_namespace: str = "envoy.lb"
    body_limit_bytes: int = 64 * 1024 * 1024
    subset_filter: bool = True
    echo_headers: bool = False
    emit_scores: bool = False
    """The totals of all scored endpoints, in the dynamic metadata."""
    emit_decision: bool = False
    """The decision in one line, as a header of the response where one is seen."""
