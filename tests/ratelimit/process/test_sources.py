# SPDX-License-Identifier: Apache-2.0
"""Files to rules: Go's form, manifests, folders, and what is told about those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from epp.contract.errors import EppError
from epp.manifests.limits import Unit
from epp.ratelimit.pages import line_of
from epp.ratelimit.sources import Loaded, Sources
from tests.ratelimit.process.gateway import DOMAIN, POLICY
from tests.ratelimit.process.support import rules


def load(*paths: Path) -> Loaded:
    return Sources(paths).load()


def names(loaded: Loaded) -> list[str]:
    return [limit.rule for limit in loaded.book.limits()]


def test_documents_of_several_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.json"
    first.write_text(f"{rules(domain='one')}---\n# nothing\n---\n{rules(5, 'second', domain='two')}")
    second.write_text('{"domain": "three", "descriptors": []}')
    loaded = load(first, second)
    assert names(loaded) == ["one.route.rule-0-match-0", "two.route.rule-0-match-0"]
    assert list(loaded.book.domains) == ["one", "two", "three"]
    assert (len(list(loaded.book.limits())), loaded.notes) == (2, ())


def test_the_tutorials_policy(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    loaded = load(file)
    [limit] = loaded.book.limits()
    assert limit.rule == f"{DOMAIN}.route.rule-0-match-0.rule-0-match-1_rule-0-match-1"
    assert (limit.requests, limit.unit, limit.shadow) == (1000, Unit.HOUR, False)
    assert limit.label.endswith("/rule-0")
    assert line_of(limit).endswith(f", label: {limit.label}")


def test_a_policy_in_markdown_beside_rules(tmp_path: Path) -> None:
    page, file = tmp_path / "page.md", tmp_path / "rules.yaml"
    page.write_text(f"# How to\n\n```yaml\n{POLICY}```\n\n```sh\nkubectl get pods\n```\n")
    file.write_text(rules(domain="mine"))
    assert len(names(load(page, file))) == 2


def test_what_a_policy_asks_for_and_is_not_done_is_told(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.replace("spec:\n", "spec:\n  circuitBreaker:\n    maxConnections: 5\n"))
    [note] = load(file).notes
    assert "circuitBreaker" in note
    assert "model-specific-token-limit-policy" in note


def test_a_folder_as_the_go_service_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (tmp_path / "a.yml").write_text(rules(domain="a"))
    (folder / "b.yaml").write_text(rules(domain="b"))
    (folder / "notes.txt").write_text("nothing of ours")
    (folder / ".hidden.yaml").write_text("neither: this")
    assert list(load(tmp_path).book.domains) == ["a", "b"]


MISTAKES = {
    "no YAML": ("domain: [", "a.yaml: line 2: not YAML"),
    "a key that is none": ("domain: d\n---\n\ndomain: e\nrules: []\n", "a.yaml: line 5: unknown key 'rules'"),
    "a domain twice": (f"{rules()}---\n{rules()}", "a.yaml: line 8: duplicate domain"),
    "empty": ("# nothing\n", "a.yaml: is empty; write `domain: NAME`"),
    "both kinds": (f"{POLICY}---\n{rules()}", "rules among manifests; put them into a file of their own"),
    "no limits": (
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1}]}\n",
        "a.yaml: no limits",
    ),
    "a wrong policy": (POLICY.replace("requests: 1000", "requests: many"), "a.yaml:23: "),
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(EppError) as caught:
        load(file)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(EppError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(EppError, match="the folder holds no file of rules"):
        load(tmp_path)
    file = tmp_path / "a.yaml"
    file.write_bytes(b"domain: \xff")
    with pytest.raises(EppError, match="is not UTF-8"):
        load(file)
    file.write_bytes(b"#" * (2 << 20))
    with pytest.raises(EppError, match="is longer than"):
        load(file)


def test_the_digest_follows_names_and_contents(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(rules())
    sources = Sources([tmp_path])
    before = sources.digest()
    assert sources.digest() == before
    file.write_text(rules(5))
    changed = sources.digest()
    assert changed != before
    (tmp_path / "b.yaml").write_text(rules(domain="b"))
    assert sources.digest() not in (before, changed)
    (tmp_path / "b.yaml").unlink()
    file.write_text(rules())
    assert sources.digest() == before


def test_two_policies_of_one_gateway_are_told(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(POLICY)
    domains = load(file).book.domains.keys()
    first = next(line for line in POLICY.splitlines() if line.startswith("  name:"))
    file.write_text(f"{POLICY}\n---\n{POLICY.replace(first, '  name: another', 1)}")
    assert any(
        note.startswith("not done: BackendTrafficPolicy") and "has it already, and counts" in note
        for note in load(file).notes
    )
    assert load(file).book.domains.keys() == domains
