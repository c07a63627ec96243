# SPDX-License-Identifier: Apache-2.0
"""How often and how pages are read: the flags, and over them the configuration."""

from __future__ import annotations

import random

import pytest

from epp.config.catalog import collect
from epp.config.load import load_text
from epp.contract.errors import ConfigError
from epp.contract.plugins import SCRAPED
from epp.service.flags.parsing import parse
from epp.service.wiring import scrape_settings_of
from epp.signals.poll.scraper import Scraper
from epp.signals.settings import ScrapeSettings

CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: max-score-picker}
- {type: single-profile-handler}
"""


def settings_of(argv: list[str], parameters: str = "") -> ScrapeSettings:
    text = CONFIG + (f"- type: metrics-data-source\n  parameters: {parameters}\n" if parameters else "")
    return scrape_settings_of(parse(argv, {}), load_text(text, collect(), source="test", strict=True))


def test_by_default_the_pace_is_always_full_and_pages_are_filtered() -> None:
    settings = settings_of([])
    assert (settings.interval_s, settings.idle_interval_s, settings.loop_share) == (0.05, 0.0, 0.5)
    assert settings.filtered


def test_flags() -> None:
    argv = ["--metrics-idle-interval=2s", "--metrics-max-loop-share=0.25", "--metrics-filter=false"]
    settings = settings_of(argv)
    assert (settings.idle_interval_s, settings.loop_share, settings.filtered) == (2.0, 0.25, False)


def test_the_configuration_wins_where_it_says_something() -> None:
    argv = ["--metrics-idle-interval=2s"]
    assert settings_of(argv, "{idleInterval: 5s}").idle_interval_s == 5.0
    assert settings_of(argv, "{interval: 100ms}").idle_interval_s == 2.0
    assert settings_of([], "{idleInterval: 500ms}").idle_interval_s == 0.5


def test_an_idle_interval_too_long_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^metrics idle_interval_s is 120; it must be 0 to 60 seconds$"):
        settings_of([], "{idleInterval: 2m}")


async def test_the_figures_follow_the_settings() -> None:
    scraper = Scraper(lambda e, s: True, SCRAPED, ScrapeSettings(idle_interval_s=3.0), random.Random(1))
    figures = scraper.figures()
    assert (figures.interval_s, figures.idle_interval_s, figures.idle) == (0.05, 3.0, False)
    assert [signal.name for signal in figures.signals] == [
        "WAITING",
        "RUNNING",
        "KV_UTILIZATION",
        "CACHE_CONFIG",
        "LORA",
    ]
