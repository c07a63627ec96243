# SPDX-License-Identifier: Apache-2.0
"""Where keys come from, in which order, and that no message has one."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from epp.manifests import resolve
from epp.manifests.secrets import variable_of
from epp.manifests.topology import ApiKey, Secret
from tests.manifests.support import SMALL, documents, mistakes, topology

POLICY = """
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: BackendSecurityPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: b}]
  type: APIKey
  apiKey: {secretRef: {name: the-key}}
"""
VARIABLE = "EPP_SECRET_DEFAULT_THE_KEY"
ENDPOINTS = '\n---\nendpoints: {b: ["10.0.0.1:1"]}\n'


def secret(body: str) -> str:
    return f"\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: the-key}}\n{body}\n"


def key(text: str, **wishes: object) -> ApiKey | None:
    return topology(text, **wishes).backends[0].key  # type: ignore[arg-type]


def test_from_the_document() -> None:
    encoded = base64.b64encode(b"sk-one\n").decode()
    for body in ("stringData: {apiKey: sk-one}", f"data: {{apiKey: {encoded}}}", f"data:\n  apiKey: |\n    {encoded}"):
        assert key(SMALL + POLICY + secret(body)) == ApiKey(Secret("sk-one"))


def test_environment_then_file_then_document(tmp_path: Path) -> None:
    text = SMALL + POLICY + secret("stringData: {apiKey: three}")
    file = tmp_path / "default" / "the-key" / "apiKey"
    file.parent.mkdir(parents=True)
    file.write_text("two\n")
    assert key(text) == ApiKey(Secret("three"))
    assert key(text, environ={"EPP_SECRETS_DIR": str(tmp_path)}) == ApiKey(Secret("two"))
    assert key(text, environ={"EPP_SECRETS_DIR": str(tmp_path), VARIABLE: " one "}) == ApiKey(Secret("one"))


def test_missing_key_names_the_remedies() -> None:
    (line,) = mistakes(SMALL + POLICY)
    assert (
        f"key apiKey of Secret default/the-key is not to be found; set {VARIABLE}, write it to $EPP_SECRETS_DIR/default/the-key/apiKey, or add"
        in line
    )
    assert "default/the-key/apiKey" in line


def test_a_stand_in_takes_the_place_of_a_missing_key_and_of_no_other() -> None:
    made = resolve(documents(SMALL + POLICY), environ={}, stand_in="none")
    assert made.backends[0].key == ApiKey(Secret("none"))
    (line,) = made.warnings
    assert f"is not to be found, and nothing starts without it; set {VARIABLE}" in line
    made = resolve(documents(SMALL + POLICY), environ={VARIABLE: "sk"}, stand_in="none")
    assert (made.backends[0].key, made.warnings) == (ApiKey(Secret("sk")), ())


@pytest.mark.parametrize("body", ["stringData: {apikey: hushhush}", "{}", "stringData: {}"])
def test_secret_without_the_key(body: str) -> None:
    (line,) = mistakes(SMALL + POLICY + secret(body if body != "{}" else ""))
    assert "apiKey of Secret default/the-key is not to be found" in line
    assert "hushhush" not in line


@pytest.mark.parametrize(
    "body",
    [
        "data: {apiKey: 'hush hush!'}",
        'stringData: {apiKey: "hushhush\\nx: y"}',
        'stringData: {apiKey: "hushhush\\u00e9"}',
    ],
)
def test_unusable_key_is_not_shown(body: str) -> None:
    said = " ".join(mistakes(SMALL + POLICY + secret(body)))
    assert "hush" not in said


def test_placeholder_is_told() -> None:
    found = topology(SMALL + POLICY + secret("stringData: {apiKey: <your key>}"))
    assert [line for line in found.warnings if f"placeholder for apiKey; set {VARIABLE} to the key" in line]


def test_forms_of_the_policy() -> None:
    by_reference = SMALL.replace("backendRef: {kind", "backendSecurityPolicyRef: {name: p}\n  backendRef: {kind")
    alone = POLICY.replace(
        "targetRefs: [{group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: b}]", "targetRefs: []"
    )
    assert key(by_reference + alone, environ={VARIABLE: "k"}) == ApiKey(Secret("k"))
    anthropic = POLICY.replace("type: APIKey", "type: AnthropicAPIKey").replace("apiKey:", "anthropicAPIKey:")
    assert key(SMALL + anthropic, environ={VARIABLE: "k"}) == ApiKey(Secret("k"), "x-api-key", "")


def test_other_types_are_listed() -> None:
    text = POLICY.replace("type: APIKey", "type: AWSCredentials").replace("apiKey: {", "awsCredentials: {region: r, ")
    found = topology(SMALL + text)
    assert found.backends[0].key is None
    assert [str(item) for item in found.unsupported] == [
        "BackendSecurityPolicy default/p spec.awsCredentials: requests go to the backend without a key"
    ]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("apiKey: {secretRef: {name: the-key}}", ""), "type is APIKey, but spec.apiKey is missing"),
        (("type: APIKey", "type: ApiKey"), "spec.type: \"ApiKey\" is unknown; did you mean 'APIKey'?"),
        (
            ("{name: the-key}", "{name: the-key, kind: ConfigMap}"),
            "kind ConfigMap is not allowed here; allowed: Secret",
        ),
        (("{name: the-key}", "{namespace: ns}"), "spec.apiKey.secretRef: name is missing"),
    ],
)
def test_mistakes(change: tuple[str, str], line: str) -> None:
    assert line in mistakes(SMALL + POLICY.replace(*change), environ={VARIABLE: "k"})[0]


def test_two_policies_for_one_backend() -> None:
    both = POLICY + POLICY.replace("name: p}", "name: q}")
    (line,) = mistakes(SMALL + both, environ={VARIABLE: "k"})
    assert "AIServiceBackend default/b has a key by BackendSecurityPolicy default/p already" in line


def test_no_representation_has_the_key() -> None:
    found = topology(SMALL + POLICY + secret("stringData: {apiKey: hushhush}"))
    assert "hushhush" not in repr(found)
    assert "hushhush" not in repr(documents(SMALL + secret("stringData: {apiKey: hushhush}")))


def test_names_of_variables() -> None:
    assert variable_of("kserve-test/envoy-ai.gateway_key") == "EPP_SECRET_KSERVE_TEST_ENVOY_AI_GATEWAY_KEY"


def test_key_of_a_pool() -> None:
    text = SMALL.replace(
        "backendRefs: [{name: b}]",
        "backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: pool}]",
    )
    text += "\n---\napiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {name: pool}\nspec: {selector: {}}\n"
    text += POLICY.replace("kind: AIServiceBackend, name: b", "kind: InferencePool, name: pool")
    assert topology(text, environ={VARIABLE: "k"}).pools[0].key == ApiKey(Secret("k"))


@pytest.mark.parametrize(("data", "fault"), [
    (b"", "is empty"),
    (b" \n\n", "is empty"),
    (b"sk-one\nsk-two\n", "has characters that no header can carry"),
    (b"sk-\xc3\xa9", "has characters that no header can carry"),
    (b"sk-\xff", "has characters that no header can carry"),
    (b"k" * 9000, "is longer than 8192 characters"),
])  # fmt: skip
def test_a_file_that_is_no_key_is_named_once_and_not_shown(tmp_path: Path, data: bytes, fault: str) -> None:
    file = tmp_path / "default" / "the-key" / "apiKey"
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    (line,) = mistakes(SMALL + POLICY, environ={"EPP_SECRETS_DIR": str(tmp_path)})
    assert line.endswith(f"the key from {file} {fault}; give the key alone, in one line")
    assert "sk-" not in line


def test_a_directory_in_the_place_of_the_key(tmp_path: Path) -> None:
    (tmp_path / "default" / "the-key" / "apiKey").mkdir(parents=True)
    (line,) = mistakes(SMALL + POLICY, environ={"EPP_SECRETS_DIR": str(tmp_path)})
    assert line.endswith("apiKey cannot be read: Is a directory; it has to be a file with the key")


def test_a_key_in_a_file_may_end_with_an_empty_line(tmp_path: Path) -> None:
    file = tmp_path / "default" / "the-key" / "apiKey"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"sk-one \r\n\n")
    assert key(SMALL + POLICY, environ={"EPP_SECRETS_DIR": str(tmp_path)}) == ApiKey(Secret("sk-one"))
