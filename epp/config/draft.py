# SPDX-License-Identifier: Apache-2.0
"""The instances of a configuration while it is being completed, and the rules for references between them.

An entry that cannot be used (unknown type, wrong parameters) is remembered as broken, so that one mistake is not
reported again at every place that refers to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from epp.config.catalog import Catalog, Entry
from epp.config.configuration import Instance, Origin
from epp.config.document import Node
from epp.config.findings import Findings, remedy
from epp.config.parameters import read_parameters
from epp.config.schema import PluginEntry
from epp.config.typed import MISSING
from epp.contract.errors import ConfigError
from epp.contract.plugins import Kind, Reads


class Draft:
    """Instances by name, in order. `strict` makes unknown parameters mistakes."""

    def __init__(self, catalog: Catalog, findings: Findings, *, strict: bool) -> None:
        self.catalog = catalog
        self.findings = findings
        self.strict = strict
        self.instances: dict[str, Instance] = {}
        self.broken: set[str] = set()

    def declare(self, entries: Iterable[PluginEntry]) -> None:
        """Take the document's `plugins`."""
        lines: dict[str, int] = {}
        for index, entry in enumerate(entries):
            name = entry.name or entry.type
            if not entry.type:
                which = f"plugin '{name}'" if name else f"plugins[{index}]"
                self.findings.mistake(entry.at.own, f"{which} is missing a type{_types(self.catalog)}")
            if name in lines:
                text = f"duplicate plugin name '{name}', first on line {lines[name]}; give one of them another name"
                self.findings.mistake(entry.at["name"] if entry.name else entry.at["type"], text)
                continue
            lines[name] = entry.at.own
            instance = self._instance(entry, name) if entry.type else None
            if instance is None:
                self.broken.add(name)
            else:
                self.instances[name] = instance

    def _instance(self, entry: PluginEntry, name: str) -> Instance | None:
        found = self._find(entry.type, entry.at["type"])
        if found is None:
            return None
        if entry.type != found.spec.type:
            text = f"plugin type '{entry.type}' is an older name of '{found.spec.type}'"
            self.findings.note(entry.at["type"], text)
        return self._make(name, entry.type, found, entry.parameters, entry.at.own, Origin.GIVEN)

    def add(self, type: str, because: str, parameters: Node | None = None) -> Instance | None:  # noqa: A002 - as there
        """Add an instance that the document left out, under its type's name or a free one, and note it."""
        entry = self._find(type, 0)
        if entry is None:
            return None
        name, number = type, 2
        while name in self.instances or name in self.broken:
            name, number = f"{type}-{number}", number + 1
        instance = self._make(name, type, entry, parameters, 0, Origin.DEFAULT)
        if instance is not None:
            self.instances[name] = instance
            self.findings.note(0, f"added plugin '{name}': {because}")
        return instance

    def of_kind(self, *kinds: Kind) -> list[Instance]:
        """Instances of any of these kinds, in order."""
        return [instance for instance in self.instances.values() if instance.is_a(*kinds)]

    def of_type(self, type: str) -> list[Instance]:  # noqa: A002 - the field's name
        """Instances of this type (today's name), in order."""
        return [instance for instance in self.instances.values() if instance.spec.type == type]

    def resolve(
        self, name: str, line: int, where: str, fits: Callable[[Instance], bool], more: Iterable[str] = ()
    ) -> Instance | None:
        """The instance that `where` refers to, or None: a mistake, unless the instance is broken itself.

        For the message: `fits` says which instances belong there, `more` are names that would do without one.
        """
        instance = self.instances.get(name)
        if instance is not None or name in self.broken:
            return instance
        known = [*(i.name for i in self.instances.values() if i.line and fits(i)), *more]
        if not name:
            self.findings.mistake(line, f"{where} is missing a 'pluginRef'{remedy('', known)}")
        elif name in self.catalog:
            self.findings.mistake(line, f"{where} references undefined plugin '{name}'; add it to plugins")
        else:
            self.findings.mistake(line, f"{where} references undefined plugin '{name}'{remedy(name, known)}")
        return None

    def _find(self, type: str, line: int) -> Entry | None:  # noqa: A002 - the field's name
        try:
            entry = self.catalog.find(type)
        except ConfigError as error:
            self.findings.mistake(line, str(error))
            return None
        if entry is None:
            text = f"plugin type '{type}' is not registered{remedy(type, self.catalog.names())}; --plugin-dir adds more"
            self.findings.mistake(line, text)
        return entry

    def _make(
        self,
        name: str,
        spelled: str,
        entry: Entry,
        parameters: Node | None,
        line: int,
        origin: Origin,
    ) -> Instance | None:
        value = read_parameters(entry, name, parameters, self.findings, line=line, strict=self.strict)
        if value is MISSING:
            return None
        try:
            reads = reads_of(entry, value)
        except Exception as error:
            self.findings.mistake(line, f"failed to create plugin '{name}' (type: {spelled}): {error}")
            return None
        return Instance(name, spelled, entry, value, reads, line, origin)


def reads_of(entry: Entry, parameters: object) -> Reads:
    """What an instance with these parameters reads: the class's `reads_for(parameters)` where there is one."""
    reads_for = getattr(entry.target, "reads_for", None)
    reads = reads_for(parameters) if callable(reads_for) else entry.spec.reads
    if not isinstance(reads, Reads):
        raise TypeError(f"reads_for returned {reads!r}; allowed: a Reads value")
    return reads | Reads.RESPONSE_HEADERS if hasattr(entry.target, "on_response_headers") else reads


def _types(catalog: Catalog) -> str:
    return f"; allowed: {', '.join(catalog.names())}"
