# SPDX-License-Identifier: Apache-2.0
"""create, update, patch, delete: what clients write, with the server's checks of identity and concurrency.

Of contents only leases are checked, because a client that writes them wrong must not pass here: types, and times with
exactly six digits of microseconds.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from tests.apiserver.kinds import LEASES, PODS, Kind
from tests.apiserver.reading import Chosen
from tests.apiserver.request import Request
from tests.apiserver.status import (
    Refused,
    already_exists,
    bad_request,
    conflict,
    done,
    invalid,
    method_not_allowed,
    not_found,
    refuse,
)
from tests.apiserver.store import Body, Item, Store, key_of

_MICRO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)\Z")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")
PATCHES = ("application/merge-patch+json", "application/strategic-merge-patch+json")


def read_body(kind: Kind, request: Request) -> Body:
    """The object in the request's body, of the right kind, name and namespace."""
    try:
        body = orjson.loads(request.body)
    except ValueError as error:
        raise bad_request(f"the object provided is unrecognized (must be of type {kind.kind}): {error}") from None
    if not isinstance(body, dict):
        raise bad_request(f"json: cannot unmarshal into Go value of type {kind.kind}")
    if kind.custom and "kind" not in body:
        raise bad_request("Object 'Kind' is missing in the request body")
    for field, expected, text in (
        (
            "apiVersion",
            kind.api_version,
            "the API version in the data ({}) does not match the expected API version ({})",
        ),
        ("kind", kind.kind, "the kind in the data ({}) does not match the expected kind ({})"),
    ):
        if body.get(field) not in (None, "", expected):
            raise bad_request(text.format(body[field], expected))
    meta = body.setdefault("metadata", {})
    if meta.get("namespace") not in (None, "", request.namespace):
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if kind.namespaced:
        meta["namespace"] = request.namespace
    if kind is LEASES:
        check_lease(body)
    return body


def check_lease(body: Body) -> None:
    """The types of a lease's fields, as the real server decodes and validates them."""
    spec = body.get("spec") or {}
    name = body["metadata"].get("name", "")
    for field in ("acquireTime", "renewTime"):
        value = spec.get(field)
        if value is not None and (not isinstance(value, str) or not _MICRO.match(value)):
            raise bad_request(
                f'Lease in version "v1" cannot be handled as a Lease: parsing time "{value}" as '
                '"2006-01-02T15:04:05.000000Z07:00": cannot parse'
            )
    if not isinstance(spec.get("holderIdentity", ""), str | None):
        raise bad_request('Lease in version "v1" cannot be handled as a Lease: json: cannot unmarshal holderIdentity')
    for field, lowest in (("leaseDurationSeconds", 1), ("leaseTransitions", 0)):
        value = spec.get(field)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise bad_request(
                f'Lease in version "v1" cannot be handled as a Lease: json: cannot unmarshal {value!r} into Go struct '
                f"field LeaseSpec.spec.{field} of type int32"
            )
        if value < lowest:
            bound = "greater than 0" if lowest else "greater than or equal to 0"
            raise invalid(LEASES, name, f"spec.{field}", f"Invalid value: {value}: must be {bound}")


def create(store: Store, kind: Kind, request: Request) -> bytes:
    """POST."""
    body = read_body(kind, request)
    meta = body["metadata"]
    if meta.get("resourceVersion"):
        raise refuse(500, "", "resourceVersion should not be set on objects to be created")
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = meta["generateName"] + secrets.token_hex(3)[:5]
    name = meta.get("name") or ""
    if not name:
        raise invalid(
            kind, "", "metadata.name", "Required value: name or generateName is required", "FieldValueRequired"
        )
    if not _NAME.match(name):
        why = f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters'
        raise invalid(kind, name, "metadata.name", why)
    if kind.status:
        body.pop("status", None)
    for field in ("uid", "creationTimestamp"):
        meta.pop(field, None)
    with store.lock:
        if store.get(kind, key_of(kind, request.namespace, name)) is not None:
            raise already_exists(kind, name)
        return store.put(kind, body).data


def _checked(kind: Kind, body: Body, item: Item, name: str) -> None:
    """Optimistic concurrency: nobody has changed it since the writer read it."""
    version = body["metadata"].get("resourceVersion")
    if not version:
        if not kind.unconditional_update:
            raise invalid(kind, name, "metadata.resourceVersion", "Invalid value: 0x0: must be specified for an update")
    elif version != str(item.version):
        raise conflict(kind, name)
    uid = body["metadata"].get("uid")
    if uid and uid != item.uid:
        raise conflict(kind, name, f"Precondition failed: UID in precondition: {uid}, UID in object meta: {item.uid}")


def update(store: Store, kind: Kind, request: Request) -> tuple[int, bytes]:
    """PUT: HTTP status and object."""
    body = read_body(kind, request)
    name = body["metadata"].setdefault("name", request.name)
    if name != request.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({request.name})")
    with store.lock:
        item = store.get(kind, key_of(kind, request.namespace, name))
        if item is None:
            if not kind.create_on_update or request.subresource:
                raise not_found(kind, name)
            body["metadata"].pop("resourceVersion", None)
            return 201, store.put(kind, body).data
        _checked(kind, body, item, name)
        return 200, _merge_parts(store, kind, request.subresource, item, body)


def _merge_parts(store: Store, kind: Kind, subresource: str, item: Item, body: Body) -> bytes:
    """A write of the object leaves its status alone; one of the status leaves everything else."""
    before = item.load()
    if subresource == "status":
        after = {**before, "status": body.get("status")}
    elif kind.status:
        after = {**body, "status": before.get("status")}
    else:
        after = dict(body)
    if after.get("status") is None:
        after.pop("status", None)
    after["metadata"] = dict(after["metadata"])
    for field in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        after["metadata"].pop(field, None)
        if field in before["metadata"]:
            after["metadata"][field] = before["metadata"][field]
    item = store.put(kind, after)
    if "deletionTimestamp" in after["metadata"] and kind is not PODS and not after["metadata"].get("finalizers"):
        return (store.remove(kind, key_of(kind, request_namespace(after), after["metadata"]["name"])) or item).data
    return item.data


def request_namespace(body: Body) -> str:
    """The namespace of an object, "" without one."""
    return str(body["metadata"].get("namespace", ""))


def merge(target: Any, change: Any) -> Any:
    """RFC 7386: the target changed by a merge patch."""
    if not isinstance(change, dict):
        return change
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in change.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def patch(store: Store, kind: Kind, request: Request, content_type: str) -> bytes:
    """PATCH by merge; a strategic merge is taken for a plain one."""
    if content_type not in PATCHES or (kind.custom and content_type != PATCHES[0]):
        text = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(PATCHES)
        raise refuse(415, "UnsupportedMediaType", text, {})
    try:
        change = orjson.loads(request.body)
    except ValueError as error:
        raise bad_request(f"error decoding patch: {error}") from None
    with store.lock:
        item = store.get(kind, key_of(kind, request.namespace, request.name))
        if item is None:
            raise not_found(kind, request.name)
        body = merge(item.load(), change)
        _checked(kind, body, item, request.name)
        if kind is LEASES:
            check_lease(body)
        return _merge_parts(store, kind, request.subresource, item, body)


def delete(store: Store, kind: Kind, request: Request) -> Body | bytes:
    """DELETE of one: a Status, or for pods the object, which may live on until its grace is over."""
    options: dict[str, Any] = orjson.loads(request.body) if request.body else {}
    key = key_of(kind, request.namespace, request.name)
    with store.lock:
        item = store.get(kind, key)
        if item is None:
            raise not_found(kind, request.name)
        wanted = options.get("preconditions") or {}
        if wanted.get("uid") not in (None, item.uid):
            why = f"Precondition failed: UID in precondition: {wanted['uid']}, UID in object meta: {item.uid}"
            raise conflict(kind, request.name, why)
        if wanted.get("resourceVersion") not in (None, str(item.version)):
            raise conflict(kind, request.name)
        grace_s = options.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
        gone = remove(store, kind, item, grace_s=None if grace_s is None else int(grace_s))
        if kind is PODS or gone.load()["metadata"].get("deletionTimestamp"):
            return gone.data
    details = {"name": request.name, "group": kind.group, "kind": kind.plural, "uid": item.uid}
    return done({field: value for field, value in details.items() if value})


def remove(store: Store, kind: Kind, item: Item, *, grace_s: int | None) -> Item:
    """Delete, gracefully where that is the kind's way: a pod with a grace, and whatever has finalizers."""
    body = item.load()
    meta = body["metadata"]
    key = key_of(kind, request_namespace(body), meta["name"])
    if kind is PODS and grace_s is None:
        spec = body.get("spec")
        grace_s = spec.get("terminationGracePeriodSeconds", 30) if isinstance(spec, dict) else 30
    if not meta.get("finalizers") and not (kind is PODS and grace_s):
        return store.remove(kind, key) or item
    end = datetime.now(UTC) + timedelta(seconds=grace_s or 0)
    meta.setdefault("deletionTimestamp", end.strftime("%Y-%m-%dT%H:%M:%SZ"))
    meta.setdefault("deletionGracePeriodSeconds", grace_s or 0)
    return store.put(kind, body)


def delete_all(store: Store, kind: Kind, request: Request) -> bytes:
    """DELETE of a collection: the list of what was deleted."""
    chosen = Chosen(kind, request)
    with store.lock:
        items, version = store.state(kind)
        gone = [remove(store, kind, item, grace_s=None) for key, item in sorted(items.items()) if chosen(key, item)]
    names = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": {"resourceVersion": str(version)}}
    return orjson.dumps({**names, "items": [item.load() for item in gone]})


def checked_verb(kind: Kind, verb: str) -> Refused | None:
    """What is said when the kind has no such verb."""
    return None if verb in kind.verbs else method_not_allowed()
