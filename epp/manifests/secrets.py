# SPDX-License-Identifier: Apache-2.0
"""Keys for upstreams. Where the key `apiKey` of a Secret comes from, the first that has it:

1. the environment: `EPP_SECRET_<NAMESPACE>_<NAME>`, in capitals, other characters than letters and digits as `_`
2. a file `<namespace>/<name>/apiKey` in a directory, given or named by `EPP_SECRETS_DIR`
3. the Secret in the files, `data` (base64) or `stringData`

No message has any of it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epp.manifests.documents import Document, Step
from epp.manifests.sources import Sources, full_name
from epp.manifests.topology import ApiKey, Secret

KEY = "apiKey"
DIRECTORY = "EPP_SECRETS_DIR"
KEY_VARIABLES = "EPP_SECRET_"
"""What the variables begin with that hold keys."""
MOST_CHARACTERS = 8192
"""Of a key; what is longer is another file."""
_OTHER = re.compile(r"[^A-Z0-9]")
_PLACEHOLDER = re.compile(r"<[^<>]*>")
_TYPES: Mapping[str, tuple[str, str, str]] = {
    "APIKey": ("apiKey", "authorization", "Bearer "),
    "AnthropicAPIKey": ("anthropicAPIKey", "x-api-key", ""),
}


def variable_of(name: str) -> str:
    """The environment variable for a Secret `namespace/name`."""
    return f"{KEY_VARIABLES}{_OTHER.sub('_', name.upper())}"


def key_of(sources: Sources, policy: Document) -> ApiKey | None:
    """The key a BackendSecurityPolicy gives to its backends; None for types that are not supported."""
    spec = policy.spec
    known = _TYPES.get(spec["type"])
    if known is None:
        return None
    field, header, prefix = known
    if field not in spec:
        sources.mistake(policy, ("spec",), f"type is {spec['type']}, but spec.{field} is missing")
        return None
    path: tuple[Step, ...] = ("spec", field, "secretRef")
    reference = spec[field]["secretRef"]
    if reference.get("kind", "Secret") != "Secret":
        sources.mistake(policy, path, f"kind {reference['kind']} is not allowed here; allowed: Secret")
        return None
    name = full_name(reference, policy)
    sources.check_grant(policy, path, ("BackendSecurityPolicy",), "Secret", name)
    text = _text(sources, policy, path, name)
    return ApiKey(Secret(text), header, prefix) if text else None


def _text(sources: Sources, policy: Document, path: tuple[Step, ...], name: str) -> str:
    """The key's text, "" after a mistake."""
    variable, file = variable_of(name), _file_of(sources, name)
    text = sources.environ.get(variable) or None
    where = f"the variable {variable}"
    if text is None and file is not None:
        where = str(file)
        try:
            text = _read(file)
        except OSError as error:
            sources.mistake(policy, path, f"{file} cannot be read: {error.strerror}; it has to be a file with the key")
            return ""
    if text is None:
        text = _from_document(sources, name)
        where = f"Secret {name}"
        if text is not None and _PLACEHOLDER.search(text):
            sources.warn(policy, path, f"Secret {name} has a placeholder for {KEY}; set {variable} to the key")
    if text is None:
        directory = sources.secrets_dir or f"${DIRECTORY}"
        remedy = f"set {variable}, write it to {directory}/{name}/{KEY}, or add the Secret"
        text = f"key {KEY} of Secret {name} is not to be found"
        if sources.stand_in:
            sources.warn(policy, path, f"{text}, and nothing starts without it; {remedy}")
            return sources.stand_in
        sources.mistake(policy, path, f"{text}; {remedy}")
        return ""
    text = text.strip()
    fault = _fault(text)
    if fault is not None:
        sources.mistake(policy, path, f"the key from {where} {fault}; give the key alone, in one line")
        return ""
    return text


def _fault(key: str) -> str | None:
    """What keeps `key` from being a header's value; the key is not in it."""
    if not key:
        return "is empty"
    if not key.isascii() or not key.isprintable():
        return "has characters that no header can carry"
    return f"is longer than {MOST_CHARACTERS} characters" if len(key) > MOST_CHARACTERS else None


def _file_of(sources: Sources, name: str) -> Path | None:
    if sources.secrets_dir is None:
        return None
    namespace, _, bare = name.partition("/")
    if any(part in ("", ".", "..") or "/" in part for part in (namespace, bare)):
        return None
    return sources.secrets_dir / namespace / bare / KEY


def _read(file: Path) -> str | None:
    """The file's text, cut where it is too long to be a key, and no key where it is no text. Raises `OSError`."""
    try:
        with file.open("rb") as opened:
            return opened.read(2 * MOST_CHARACTERS).decode(errors="replace")
    except FileNotFoundError:
        return None


def _from_document(sources: Sources, name: str) -> str | None:
    document = sources.find("Secret", name)
    if document is None:
        return None
    return value_in(sources, document, KEY)


def value_in(sources: Sources, document: Document, key: str) -> str | None:
    """The text of a key of a Secret in the files; None if it is not there, or after a mistake."""
    plain: dict[str, Any] = document.plain()
    given = plain.get("stringData", {}).get(key)
    if given is not None:
        return str(given)
    encoded = plain.get("data", {}).get(key)
    if encoded is None:
        return None
    try:
        return base64.b64decode("".join(encoded.split()), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        sources.mistake(document, ("data", key), f"data.{key} is not base64 of a text; use stringData for plain text")
        return None
