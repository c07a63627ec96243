# SPDX-License-Identifier: Apache-2.0
"""Who may do what: RBAC as the real server decides it, refusals by rule, and kinds that are not installed.

Without a rule everybody who is authenticated may do everything. A change counts for requests that come after it, as
it does in the real server: a watch that runs goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.apiserver.kinds import GVP, KINDS, Kind
from tests.apiserver.request import Request

Rule = Mapping[str, Any]
"""A rule of a Role: apiGroups, resources, verbs, resourceNames; or nonResourceURLs and verbs."""

PUBLIC = ("/healthz", "/livez", "/readyz", "/version")
DISCOVERY = ("/api", "/apis", "/openapi", "/version", *PUBLIC)
MASTERS = "system:masters"
ANONYMOUS = "system:anonymous"


@dataclass(frozen=True, slots=True)
class Binding:
    """Rules for one namespace, or everywhere (None); for one user or group, or for everybody (None)."""

    rules: tuple[Rule, ...]
    namespace: str | None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Denial:
    """What is refused; "*" is any verb or resource, None any group or namespace."""

    verb: str
    plural: str
    group: str | None
    namespace: str | None


class Rules:
    """`namespace` is the service account's, where `allow_only` binds a Role by default.

    `uninstalled` is told of the kinds that are gone: their watches end.
    """

    def __init__(self, namespace: str, uninstalled: Callable[[frozenset[GVP]], None]) -> None:
        self.namespace = namespace
        self._uninstalled = uninstalled
        self._denials: tuple[Denial, ...] = ()
        self._bindings: tuple[Binding, ...] | None = None
        self._absent: frozenset[GVP] = frozenset()

    def deny(self, verb: str, plural: str, group: str | None = None, namespace: str | None = None) -> None:
        """Refuse with 403, whatever the roles say. A plural may bear a subresource: "pods/status"."""
        self._denials = (*self._denials, Denial(verb, plural, group, namespace))

    def allow_only(
        self,
        rules: Sequence[Rule],
        *,
        namespace: str | None = None,
        cluster: Sequence[Rule] = (),
        subject: str | None = None,
    ) -> None:
        """Nothing but a Role in the namespace (the service account's by default), and a ClusterRole everywhere."""
        self._bindings = ()
        self.allow(rules, namespace=namespace or self.namespace, subject=subject)
        self.allow(cluster, subject=subject)

    def allow(self, rules: Sequence[Rule], *, namespace: str | None = None, subject: str | None = None) -> None:
        """One more binding: a Role in a namespace, or a ClusterRole everywhere."""
        self._bindings = (*(self._bindings or ()), Binding(tuple(rules), namespace, subject))

    def reset(self) -> None:
        """Everybody may do everything again; what is uninstalled stays so."""
        self._denials, self._bindings = (), None

    def uninstall(self, group: str, version: str | None = None, plural: str | None = None) -> None:
        """The kinds are not there: 404. Their objects are hidden, and are back with `install`."""
        names = self._named(group, version, plural)
        self._absent |= names
        self._uninstalled(names)

    def install(self, group: str, version: str | None = None, plural: str | None = None) -> None:
        """The kinds are there again."""
        self._absent -= self._named(group, version, plural)

    @staticmethod
    def _named(group: str, version: str | None, plural: str | None) -> frozenset[GVP]:
        names = frozenset(
            (one.group, one.version, one.plural)
            for one in KINDS
            if one.group == group and version in (None, one.version) and plural in (None, one.plural)
        )
        if not names:
            raise KeyError(f"no kind is in group {group!r}, version {version!r}, plural {plural!r}")
        return names

    def installed(self) -> Iterable[Kind]:
        """The kinds that are served."""
        return [one for one in KINDS if (one.group, one.version, one.plural) not in self._absent]

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind, if it is served."""
        return next(
            (one for one in self.installed() if (one.group, one.version, one.plural) == (group, version, plural)), None
        )

    def allows(self, request: Request) -> bool:
        """Whether `request.user` may."""
        if not request.plural:
            return self._allows_path(request)
        if any(_denied(denial, request) for denial in self._denials):
            return False
        if MASTERS in request.groups:
            return True
        if request.user == ANONYMOUS:
            return False
        if self._bindings is None:
            return True
        return any(
            _grants(rule, request) for binding in self._bindings if _binds(binding, request) for rule in binding.rules
        )

    def _allows_path(self, request: Request) -> bool:
        if MASTERS in request.groups or _under(request.path, PUBLIC):
            return True
        if request.user == ANONYMOUS:
            return False
        if self._bindings is None or _under(request.path, DISCOVERY):
            return True
        return any(
            grants_path(rule, request.verb, request.path)
            for binding in self._bindings
            if binding.namespace is None and _is(binding.subject, request)
            for rule in binding.rules
        )


def _under(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(root + "/") for root in roots)


def _is(subject: str | None, request: Request) -> bool:
    return subject is None or subject == request.user or subject in request.groups


def _binds(binding: Binding, request: Request) -> bool:
    return binding.namespace in (None, request.namespace) and _is(binding.subject, request)


def _denied(denial: Denial, request: Request) -> bool:
    return (
        denial.verb in ("*", request.verb)
        and denial.plural in ("*", request.resource)
        and denial.group in (None, request.group)
        and denial.namespace in (None, request.namespace)
    )


def _grants(rule: Rule, request: Request) -> bool:
    verbs, groups, resources = rule.get("verbs", ()), rule.get("apiGroups", ()), rule.get("resources", ())
    names = rule.get("resourceNames", ())
    return (
        ("*" in verbs or request.verb in verbs)
        and ("*" in groups or request.group in groups)
        and ("*" in resources or request.resource in resources)
        and (not names or request.name in names)
    )


def grants_path(rule: Rule, verb: str, path: str) -> bool:
    """Whether a rule with nonResourceURLs grants the verb on the path; "/debug/*" covers what is below."""
    verbs = rule.get("verbs", ())
    return ("*" in verbs or verb in verbs) and any(
        url in ("*", path) or (url.endswith("*") and path.startswith(url[:-1]))
        for url in rule.get("nonResourceURLs", ())
    )
