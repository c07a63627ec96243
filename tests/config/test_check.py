# SPDX-License-Identifier: Apache-2.0
"""The command `epp check`: what it prints, and its exit code."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from epp.config.check import main
from epp.contract.errors import UsageError

GOOD = """\
plugins:
- type: prefix-cache-scorer
- type: queue-scorer
  name: queues
- {type: file-discovery, parameters: {path: /etc/endpoints.yaml}}
- {type: load-aware-scorer, parameters: {treshold: 3}}
dataLayer: {discovery: {pluginRef: file-discovery}}
schedulingProfiles:
- name: main
  plugins:
  - {pluginRef: prefix-cache-scorer, weight: 2.5}
  - pluginRef: queues
"""
BAD = "plugins:\n- type: queue-scoree\n- {type: load-aware-scorer, parameters: {threshold: x}}\n"


@pytest.fixture
def write(tmp_path: Path) -> Path:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)
    return tmp_path


def test_the_plan_of_a_good_configuration(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(write / "good.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{write / 'good.yaml'}: can be used, 1 warning"
    for line in (
        "profile    main",
        "  scorer   prefix-cache-scorer  weight 2.5",
        "  scorer   queues (queue-scorer)  weight 1  (default)",
        "  picker   max-score-picker  (default)",
        "handler    single-profile-handler  (default)",
        "  approx-prefix-cache-producer  (default)  publishes PrefixCacheMatchInfo/approx-prefix-cache-producer",
        "scraped    by metrics-data-source",
        "  waiting for queues",
        "bodies     parsed for approx-prefix-cache-producer",
        "parsers    openai-parser, anthropic-parser, passthrough-parser  (default)",
        "responses  no plugin reads them",
        "endpoints  from file-discovery, file /etc/endpoints.yaml",
        "  line 6: plugin 'load-aware-scorer' (load-aware-scorer) is in no scheduling profile and has no effect",
        (
            "  line 6: plugin 'load-aware-scorer' (load-aware-scorer) parameters: unknown parameter \"treshold\" is ignored;"
            " did you mean 'threshold'? allowed: threshold"
        ),
    ):
        assert line in lines
    assert lines.index("warnings") < lines.index("notes")


def test_the_plan_as_json(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(write / "good.yaml"), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["ok"] is True
    assert plan["mistakes"] == []
    assert plan["profiles"][0]["scorers"] == [
        {"name": "prefix-cache-scorer", "weight": 2.5, "origin": "given"},
        {"name": "queues", "weight": 1.0, "origin": "default"},
    ]
    assert plan["scrapes"]["waiting"] == ["queues"]
    assert plan["producers"][0]["publishes"] == ["PrefixCacheMatchInfo/approx-prefix-cache-producer"]
    assert plan["endpoints"] == "from file-discovery, file /etc/endpoints.yaml"
    assert len(plan["warnings"]) == 1


def test_every_mistake_is_printed(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(write / "bad.yaml")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{write / 'bad.yaml'}: cannot be used, 2 mistakes"
    assert lines[1].startswith("  line 2: plugin type 'queue-scoree' is not registered; did you mean 'queue-scorer'?")
    assert lines[2].startswith("  line 3: plugin 'load-aware-scorer' (load-aware-scorer) parameters.threshold: \"x\"")
    assert main([str(write / "bad.yaml"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert [mistake["line"] for mistake in found["mistakes"]] == [2, 3]


def test_strict(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(write / "good.yaml"), "--strict"]) == 1
    assert "line 6: plugin 'load-aware-scorer'" in capsys.readouterr().out


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"plugins: [{type: random-picker}]")))
    assert main(["-"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "standard input: can be used"
    assert "  scorer   none: every endpoint that the filters keep is equally good" in lines
    assert "scraped    nothing: no plugin reads it" in lines
    assert "producers  none" in lines


def test_a_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["/nowhere.yaml"]) == 1
    assert capsys.readouterr().out.splitlines()[1] == (
        "  cannot be read: No such file or directory; give a readable YAML or JSON file"
    )


def test_plugins_of_a_directory_and_factories_that_fail(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write / "mine.py").write_text(
        "from epp.api import scorer\n@scorer('mine')\nclass Mine:\n    def __init__(self, context):\n"
        "        raise ValueError('the model is missing')\n"
    )
    (write / "good.yaml").write_text("plugins: [{type: mine}]\n")
    assert main([str(write / "good.yaml"), "--plugin-dir", str(write)]) == 1
    assert "line 1: failed to create plugin 'mine' (type: mine): the model is missing" in capsys.readouterr().out
    (write / "mine.py").write_text("(")
    assert main([str(write / "good.yaml"), "--plugin-dir", str(write)]) == 1
    assert f"  plugin file {write / 'mine.py'}, line 1: '(' was never closed" in capsys.readouterr().out


def test_a_reader_that_stops_early_is_fine(write: Path) -> None:
    program = "import sys; from epp.config.check import main; sys.stdin.read(); sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, str(write / "good.yaml")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_wrong_arguments() -> None:
    with pytest.raises(UsageError, match=r"^unrecognized arguments: b; epp check --help tells the options$"):
        main(["a", "b"])
