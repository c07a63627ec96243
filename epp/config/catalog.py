# SPDX-License-Identifier: Apache-2.0
"""Which plugin types there are, and where each comes from.

Three sources: the built-in table (imported when a configuration names the type), entry points of the group
`epp.plugins`, and the files of a plugin directory. A type or alias belongs to one plugin; a second one is a mistake
that names both places. Loading other people's code fails in any way it likes: every failure is one line.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from epp.config.builtin import BUILTIN
from epp.config.findings import Findings, one_line
from epp.contract.errors import ConfigError
from epp.contract.plugins import SPEC_ATTRIBUTE, PluginSpec, spec_of

GROUP = "epp.plugins"


@dataclass(frozen=True, slots=True)
class Entry:
    """A plugin type: what its decorator attached, the class or function itself, and where that was found."""

    spec: PluginSpec
    target: Any
    place: str


class Catalog:
    """Finds plugins by type or alias. `warnings` say what was found that defines nothing."""

    def __init__(self, builtin: Mapping[str, str] = BUILTIN) -> None:
        self._builtin = builtin
        self._entries: dict[str, Entry] = {}
        self.warnings: list[str] = []

    def find(self, name: str) -> Entry | None:
        """The plugin of this type or alias, or None. Raises ConfigError when a built-in cannot be imported."""
        entry = self._entries.get(name)
        if entry is None and name in self._builtin:
            entry = self._entries[name] = _builtin_entry(name, self._builtin[name])
        return entry

    def __contains__(self, name: str) -> bool:
        return name in self._entries or name in self._builtin

    def names(self) -> list[str]:
        """Every type and alias, sorted."""
        return sorted({*self._builtin, *self._entries})

    def add(self, target: Any, place: str) -> list[str]:
        """Take a tagged class or function; the clashes with what is there, one text each."""
        spec = spec_of(target)
        if spec is None:
            return [f"{place}: {target!r} is not tagged as a plugin; put @plugin, @scorer, @filter or @picker on it"]
        entry = Entry(spec, target, place)
        names = (spec.type, *spec.aliases)
        clashes = [
            f"plugin type '{name}' is defined twice: {self._place(name)} and {place}; rename one of them"
            for name in names
            if name in self
        ]
        if not clashes:
            self._entries.update(dict.fromkeys(names, entry))
        return clashes

    def _place(self, name: str) -> str:
        entry = self._entries.get(name)
        return f"built in ({self._builtin[name]})" if entry is None else entry.place


def collect(*plugin_dirs: Path | str, points: Iterable[EntryPoint] | None = None) -> Catalog:
    """The built-ins, the installed entry points (or `points`), and the files of `plugin_dirs`.

    Raises ConfigErrors with everything that could not be loaded.
    """
    catalog = Catalog()
    findings = Findings()
    for point in sorted(entry_points(group=GROUP) if points is None else points, key=lambda point: point.name):
        _add_entry_point(catalog, point, findings)
    for plugin_dir in plugin_dirs:
        _add_directory(catalog, Path(plugin_dir), findings)
    findings.raise_mistakes("plugins")
    return catalog


def _builtin_entry(name: str, dotted: str) -> Entry:
    module, _, attribute = dotted.partition(":")
    try:
        target = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"built-in plugin type '{name}' cannot be loaded: {one_line(str(error))}") from error
    spec = spec_of(target)
    if spec is None:
        raise ConfigError(f"built-in plugin type '{name}' cannot be loaded: {dotted} is not tagged as a plugin")
    return Entry(spec, target, f"built in ({dotted})")


def _add_entry_point(catalog: Catalog, point: EntryPoint, findings: Findings) -> None:
    owner = f" of distribution {point.dist.name} {point.dist.version}" if point.dist is not None else ""
    place = f"entry point {point.name} = {point.value}{owner}"
    try:
        loaded = point.load()
    except (Exception, SystemExit) as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        findings.mistake(0, f"{place}: {reason}; repair or uninstall the distribution")
        return
    targets = tagged_in(loaded) if isinstance(loaded, ModuleType) else [loaded]
    if not targets:
        catalog.warnings.append(f"{place}: the module defines no plugin")
    for target in targets:
        for clash in catalog.add(target, place):
            findings.mistake(0, clash)


def _add_directory(catalog: Catalog, directory: Path, findings: Findings) -> None:
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix == ".py" and path.name[0] not in "._")
    except OSError as error:
        findings.mistake(0, f"plugin directory {directory}: {error.strerror}; give a directory of .py files")
        return
    if not files:
        catalog.warnings.append(f"plugin directory {directory}: holds no .py file")
    for number, path in enumerate(files):
        module = _load_file(path, f"_epp_plugin_{number}_{path.stem}", findings)
        if module is None:
            continue
        targets = tagged_in(module)
        if not targets:
            catalog.warnings.append(f"plugin file {path}: defines no plugin")
        for target in targets:
            for clash in catalog.add(target, f"plugin file {path}"):
                findings.mistake(0, clash)


class _FreshLoader(SourceFileLoader):
    """Compiles the file every time and leaves none of its bytecode behind.

    Cached bytecode is recognised by time and size, and a file that was replaced may have kept both.
    """

    def get_code(self, fullname: str) -> CodeType:
        """The file's code."""
        return self.source_to_code(self.get_data(self.path), self.path)


def _load_file(path: Path, name: str, findings: Findings) -> ModuleType | None:
    loader = _FreshLoader(name, str(path))
    spec = ModuleSpec(name, loader, origin=str(path))
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    # Type hints of the file's classes are resolved through sys.modules.
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except SyntaxError as error:
        _forget(name)
        where = error.filename or str(path)
        findings.mistake(0, f"plugin file {where}, line {error.lineno or 0}: {error.msg}")
        return None
    except (Exception, SystemExit) as error:
        _forget(name)
        reason = one_line(f"{type(error).__name__}: {error}")
        findings.mistake(0, f"plugin file {path}, line {_line_in(error, path)}: {reason}")
        return None
    return module


def _forget(name: str) -> None:
    sys.modules.pop(name, None)


def _line_in(error: BaseException, path: Path) -> int:
    """The last line of `path` that took part in the error; 0 when none did."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return next((line for line in reversed(lines) if line is not None), 0)


def tagged_in(module: ModuleType) -> list[Any]:
    """Plugins that `module` or its submodules define; what they only import belongs to somebody else."""
    targets = []
    for value in vars(module).values():
        home = getattr(value, "__module__", None)
        is_own = home == module.__name__ or str(home).startswith(f"{module.__name__}.")
        # A subclass sees its parent's tag, but is no plugin of its own before it is tagged.
        is_tagged = SPEC_ATTRIBUTE in getattr(value, "__dict__", ())
        if is_own and is_tagged and value not in targets:
            targets.append(value)
    return targets
