# SPDX-License-Identifier: Apache-2.0
"""`epp check` of a configuration that counts what answers cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from epp.config.check import main

COSTS = """\
plugins:
- type: queue-scorer
- type: llm-request-costs
  parameters:
    tenantHeader: x-team
    costs:
    - {metadataKey: llm_total_token, type: TotalToken}
    - {metadataKey: price, type: CEL, cel: input_tokens * 2u}
"""


def checked(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    assert main([str(file)]) == 0
    return capsys.readouterr().out.removeprefix(f"{file}: ").splitlines()


def test_costs_are_in_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = checked(COSTS, tmp_path, capsys)
    assert lines[0] == "can be used"
    at = lines.index("besides    llm-request-costs")
    assert lines[at + 1].startswith("           metadataNamespace=io.envoy.ai_gateway, tenantHeader=x-team")
    assert lines[at + 2 : at + 4] == [
        "           costs[0]: metadataKey=llm_total_token, type=TotalToken",
        "           costs[1]: metadataKey=price, type=CEL, cel=input_tokens * 2u",
    ]


def test_no_costs_are_a_warning_and_in_the_first_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = checked(COSTS[: COSTS.index("    costs:")], tmp_path, capsys)
    assert lines[0] == "can be used, 1 warning"
    assert lines[lines.index("warnings") + 1] == (
        "  line 3: llm-request-costs: no costs are given: tokens are on the metrics page, and nothing is left for rate limits"
    )
    lines = checked(COSTS[: COSTS.index("    costs:")] + "    tenantHaeder: x\n", tmp_path, capsys)
    assert lines[0] == "can be used, 2 warnings"
