# SPDX-License-Identifier: Apache-2.0
"""Files to documents: YAML, JSON, Lists, Markdown, directories; lines in messages; nothing of a Secret is told."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.config.document import MAX_BYTES
from epp.manifests import ManifestErrors, read_files
from epp.manifests.blocks import blocks_of, documents_of
from epp.manifests.read import checked_address
from tests.manifests.support import documents, mistakes

CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {a: b}\n"


def test_many_documents_know_their_lines() -> None:
    text = "# nothing\n---\n" + CONFIG_MAP % "one" + "--- # two\n\n" + CONFIG_MAP % "two" + "---\n"
    found = documents(text)
    assert [(item.title, item.at("metadata", "name")) for item in found.items] == [
        ("ConfigMap default/one", "-:5"),
        ("ConfigMap default/two", "-:11"),
    ]


def test_separator_inside_a_block_scalar_is_text_only_when_indented() -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  key: |\n    a: 1\n    ---\n    b: 2\n"
    (item,) = documents(text).items
    assert item.plain()["data"]["key"] == "a: 1\n---\nb: 2\n"


def test_directive_belongs_to_the_document_after_it() -> None:
    assert [item.name for item in documents("%YAML 1.1\n---\n" + CONFIG_MAP % "one").items] == ["one"]


def test_list_and_json() -> None:
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "n"}, "data": {}}
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [item, {**item, "metadata": {"name": "y"}}]})
    assert [item.full_name for item in documents(text).items] == ["n/x", "default/y"]


def test_directory_is_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(CONFIG_MAP % "b")
    (tmp_path / "a.yml").write_text(CONFIG_MAP % "a")
    (tmp_path / "c.md").write_text("# Title\n```yaml\n" + CONFIG_MAP % "c" + "```\n")
    (tmp_path / "notes.txt").write_text("nothing")
    found = read_files([tmp_path])
    assert [item.name for item in found.items] == ["a", "b", "c"]
    assert [file.name for file in found.files] == ["a.yml", "b.yaml", "c.md"]


def test_later_object_of_a_name_counts_and_is_told() -> None:
    text = CONFIG_MAP % "x" + "---\n" + (CONFIG_MAP % "x").replace("a: b", "a: c")
    found = documents(text)
    assert [item.plain()["data"] for item in found.items] == [{"a": "c"}]
    assert found.remarks.warnings == [
        "-:6: ConfigMap default/x is already at -:1; this one counts, as with kubectl apply"
    ]


def test_same_object_twice_is_nothing_to_tell() -> None:
    found = documents(CONFIG_MAP % "x" + "---\n" + CONFIG_MAP % "x")
    assert len(found.items) == 1
    assert found.remarks.warnings == []


MARKDOWN = """# Guide
<Tabs>
  <TabItem value="a">

    ```yaml title="x.yaml"
    apiVersion: v1
    kind: ConfigMap
    metadata:
      name: in-a-tab
    data:
      text: |
        line
    ```
  </TabItem>
</Tabs>

```yaml
replicas: 3      # no object
```
```bash
kind: ConfigMap
```
~~~YAML {1,2}
apiVersion: v1
kind: ConfigMap
metadata: {name: tilde}
---
endpoints: {x: ["h:1"]}
~~~
````yaml
apiVersion: v1
kind: ConfigMap
metadata: {name: long}
data: {a: "```"}
````
```yaml
this is: [not yaml
```
```yaml
apiVersion: v1
kind: ConfigMap
metadata: {name: open}
"""


def test_markdown(tmp_path: Path) -> None:
    file = tmp_path / "guide.md"
    file.write_text(MARKDOWN.replace("\n", "\r\n"))
    found = read_files([file])
    assert [item.name for item in found.items] == ["in-a-tab", "tilde", "long", "open"]
    assert found.items[0].plain()["data"]["text"] == "line\n"
    assert found.items[0].at("metadata", "name") == f"{file}:9"
    assert found.items[1].at("metadata") == f"{file}:26"
    assert found.items[2].plain()["data"] == {"a": "```"}
    assert [(entry.name, entry.addresses) for entry in found.endpoints] == [("x", ("h:1",))]


def test_broken_object_in_markdown_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "guide.md"
    file.write_text("```yaml\nkind: Gateway\nspec: [\n```\n")
    with pytest.raises(ManifestErrors, match=r"guide.md:4: not YAML"):
        read_files([file])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\n", "-:1: no Kubernetes object: it has no kind; allowed besides: endpoints: {NAME: [host:port]}"),
        ("- 1\n", "-:1: no Kubernetes object"),
        ("kind: Gateway\n", "-:1: apiVersion of this Gateway must be a text that is not empty"),
        ("kind: [a]\napiVersion: v1\n", "-:1: kind must be a text"),
        ("\nkind: Service\napiVersion: v1\n", "-:2: metadata.name of this Service is missing; give it a name"),
        (
            "kind: Service\napiVersion: v1\nmetadata:\n  name: 12\n",
            "-:4: metadata.name of this Service must be a text; quote it",
        ),
        ("a: [1\n", "-:2: not YAML"),
        ("a: 1\na: 2\n", '-:2: key "a" already set in map, on line 1'),
        ("endpoints: {x: []}\n", '-:1: endpoints of "x" must be a list of host:port that is not empty'),
        ("endpoints:\n  x: [h, h:0]\n", '-:2: endpoint of "x": "h" is no host:port'),
        ("endpoints: {x: [h:70000]}\n", '-:1: endpoint of "x": "h:70000" is no host:port'),
    ],
)
def test_mistakes_of_reading(text: str, line: str) -> None:
    with pytest.raises(ManifestErrors) as caught:
        documents(text)
    assert caught.value.mistakes[0].startswith(line)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "long.yaml").write_text("#" * (MAX_BYTES + 1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestErrors) as caught:
        read_files([tmp_path / "none.yaml", tmp_path, tmp_path / "empty"])
    assert [line.removeprefix(f"{tmp_path}/") for line in caught.value.mistakes] == [
        "none.yaml: cannot be read: No such file or directory; give a file or a directory of manifests",
        "binary.yaml: is not UTF-8 text; give YAML, JSON or Markdown",
        "long.yaml: is longer than 1048576 bytes; split it",
        "empty: no file of this directory is a manifest; their names end with .yaml, .yml, .json, .md",
    ]
    assert str(caught.value).endswith("(and 3 more mistakes)")


@pytest.mark.parametrize(
    "body",
    [
        "kind: Secret\napiVersion: v1\nmetadata: {name: s}\nstringData: {k: *hushhush}\n",
        "kind: Secret\napiVersion: v1\nmetadata: {name: s}\nstringData: {k: !hushhush x}\n",
        '{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"hushhush": 1, "hushhush": 2}}',
        "kind: Secret\napiVersion: v1\nmetadata: {name: s}\nstringData: {k: [hushhush]}\n",
        "kind: Secret\napiVersion: v1\nmetadata: {name: s}\nstringData: hushhush\n",
        "kind: Secret\napiVersion: v1\nmetadata: {name: s}\ndata: [hushhush]\n",
        "kind: Secret\napiVersion: v1\nmetadata: {name: s}\nstringData: {k: 123456789}\n",
    ],
)
def test_nothing_of_a_secret_is_told(body: str) -> None:
    with pytest.raises(ManifestErrors) as caught:
        documents(body)
    said = repr(caught.value) + "".join(caught.value.mistakes)
    assert "hushhush" not in said
    assert "123456789" not in said


def test_secret_is_in_no_representation() -> None:
    found = documents("kind: Secret\napiVersion: v1\nmetadata: {name: s}\nstringData: {k: hushhush, t: <token>}\n")
    assert "hushhush" not in repr(found)
    assert found.items[0].plain()["stringData"]["t"] == "<token>"


@pytest.mark.parametrize("text", ["h:1", "10.0.0.1:8000", "[::1]:80", "a-b.c:65535"])
def test_addresses(text: str) -> None:
    assert checked_address(text) == text


@given(st.lists(st.text("ab:- \n#%", max_size=8), max_size=6))
def test_pieces_of_yaml_are_where_they_say(parts: list[str]) -> None:
    """Every piece is found again in the text at its line, and no line of content is lost."""
    text = "\n---\n".join(parts)
    lines = text.splitlines(keepends=True)
    covered: set[int] = set()
    for offset, piece in documents_of(text):
        count = len(piece.splitlines())
        assert "".join(lines[offset : offset + count]) == piece
        covered.update(range(offset, offset + count))
    for number, line in enumerate(lines):
        bare = line.strip()
        if bare and not bare.startswith(("#", "%", "---")):
            assert number in covered


@given(st.lists(st.text("ab \n", max_size=10), max_size=4))
def test_blocks_of_markdown_are_what_was_fenced(bodies: list[str]) -> None:
    bodies = [body if body.endswith("\n") or not body else body + "\n" for body in bodies]
    text = "words\n" + "".join(f"```yaml\n{body}```\nwords\n" for body in bodies)
    assert [block for _, block in blocks_of(text)] == bodies


def test_stdin_beside_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(CONFIG_MAP % "a")
    found = read_files([tmp_path / "a.yaml", Path("-")], stdin=io.StringIO(CONFIG_MAP % "b"))
    assert [item.name for item in found.items] == ["a", "b"]


def test_error_is_one_line() -> None:
    (line,) = mistakes("a: 1\n")
    assert "\n" not in line
