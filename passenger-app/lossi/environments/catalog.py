"""The merged catalogue: shipped, then the site's files, then the project's and the user's own.

The site's entry wins over a shipped one of the same name. Entries of a project or user need a name of their own: such
an entry under a taken name is listed as a problem and the other one stays. An entry that is not valid is listed too; if it was
meant to replace another one, that name is out of use until it is corrected, because silently running something else
would be worse. Reads files, starts nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import lossi
from lossi import settings
from lossi.environments import messages
from lossi.environments.models import CatalogFile, Entry, Environment, Mount, Problem, Source, Variant
from lossi.environments.paths import expanded
from lossi.errors import InvalidInput, NotFound, did_you_mean
from lossi.files import document

FILE = "catalog.yml"


@dataclass(frozen=True)
class Catalog:
    """What can be chosen, and what in the catalogues is not right.

    Attributes
    ----------
    environments
        In the order of the files: shipped, site, user, project.
    problems
        Entries and files that are left out, each with file, line and key.
    """

    environments: tuple[Environment, ...]
    problems: tuple[Problem, ...] = ()

    def get(self, name: str) -> Environment:
        """Return the environment ``name``.

        Raises
        ------
        NotFound
            When there is none; names the nearest one.
        InvalidInput
            When a catalogue has it but the entry is not valid.
        """
        for environment in self.environments:
            if environment.name == name:
                return environment
        for problem in self.problems:
            if problem.environment == name:
                raise InvalidInput(f"environment {name!r} is not usable", why=str(problem), hint=f"correct {problem.file}")
        names = [environment.name for environment in self.environments]
        hint = did_you_mean(name, names) or (f"choose one of {', '.join(names)}" if names else "the catalogue is empty")
        raise NotFound(
            f"there is no environment {messages.shown(name)}", hint=f"{hint}; `lossi env list` shows them", known=names
        )


def load(project_root: Path | None = None) -> Catalog:
    """Return the merged catalogue.

    Parameters
    ----------
    project_root
        A project whose own ``.lossi/catalog.yml`` is taken in as well.
    """
    merged = _Merged()
    merged.take(shipped_file(), "shipped")
    try:
        catalogs = settings.load().catalogs
    except InvalidInput as error:
        catalogs = ()
        merged.problems.append(Problem(file=str(settings.site_file()), message=error.what + f": {error.why}", hint=error.hint))
    for path in catalogs:
        merged.take(path, "site", must_exist=True)
    merged.take(settings.site_file(), "site", section="environments")
    # The user's own before the project's: where both use a name, the user's is kept.
    merged.take(user_file(), "user")
    if project_root is not None:
        merged.take(project_file(project_root), "project")
    return merged.catalog()


def shipped_file() -> Path:
    """Return the catalogue that comes with Lossi (in a checkout a link to ``containers/``)."""
    return Path(lossi.__file__).parent / "catalog" / FILE


def user_file() -> Path:
    """Return the path of the user's own catalogue, whether or not it exists."""
    return settings.config_dir() / FILE


def project_file(root: Path) -> Path:
    """Return the path of a project's catalogue, whether or not it exists."""
    return root / ".lossi" / FILE


@dataclass(frozen=True)
class Loaded:
    """One file: its good entries, and a problem for each other one."""

    entries: tuple[tuple[str, Entry, int], ...] = ()
    mounts: tuple[Mount, ...] = ()
    problems: tuple[Problem, ...] = ()
    lines: dict[str, int] = field(default_factory=dict)
    missing: bool = False


def load_file(path: Path, section: str | None = None) -> Loaded:
    """Return what one file says; ``section`` is the key under which a larger file holds its environments."""
    try:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    except OSError:
        stamp = (0, 0, 0)  # reading says why
    return _load_file(path, section, stamp)


@functools.lru_cache(maxsize=32)
def _load_file(path: Path, section: str | None, stamp: tuple[int, int, int]) -> Loaded:
    try:
        found = document.read(path)
    except document.Unreadable as error:
        return Loaded(problems=(Problem(file=str(path), line=error.line, key=error.key, message=error.message, hint=error.hint),))
    if found is None:
        return Loaded(missing=True)
    data = found.data
    if section is not None:  # the rest of the site's file belongs to others
        data = {"environments": data[section]} if isinstance(data, dict) and section in data else None
    if data is None:
        return Loaded()
    if not isinstance(data, dict):
        return Loaded(
            problems=(
                Problem(file=str(path), line=1, message="is not a mapping", hint="write `environments:` on its first line"),
            )
        )
    return _validated(path, found, data)


def _validated(path: Path, found: document.Document, data: dict[str, Any]) -> Loaded:
    """Validate each environment by itself, so that a wrong one does not take the others with it."""
    problems: list[Problem] = []
    named = data.get("environments")
    entries: list[tuple[str, Entry, int]] = []
    for name, value in named.items() if isinstance(named, dict) else ():
        try:
            checked = CatalogFile.model_validate({"environments": {name: {} if value is None else value}})
        except ValidationError as error:
            problems.extend(messages.problems(error, path, found, environment=name))
        else:
            entries.append((name, checked.environments[name], found.line(("environments", name))))
    rest = {
        key: value for key, value in data.items() if not (key == "environments" and (isinstance(value, dict) or value is None))
    }
    mounts: tuple[Mount, ...] = ()
    try:
        mounts = CatalogFile.model_validate(rest).mounts
    except ValidationError as error:
        problems.extend(messages.problems(error, path, found))
    return Loaded(tuple(entries), mounts, tuple(problems))


class _Merged:
    """The catalogue while it is being put together."""

    def __init__(self) -> None:
        self.environments: dict[str, Environment] = {}
        self.mounts: list[Mount] = []
        self.problems: list[Problem] = []

    def take(self, path: Path, source: Source, *, section: str | None = None, must_exist: bool = False) -> None:
        """Merge one file in."""
        loaded = load_file(path, section)
        if loaded.missing and must_exist:
            self.problems.append(Problem(file=str(path), message="does not exist", hint="correct `catalogs` in the site's file"))
        if loaded.missing and source == "shipped":
            self.problems.append(
                Problem(
                    file=str(path), message="does not exist", hint="this installation of Lossi is not whole: install it again"
                )
            )
        own = source in ("user", "project")
        self._problems(loaded.problems, own)
        if loaded.mounts and own:
            hint = "write `mounts` under the environment that needs them"
            self.problems.append(
                Problem(file=str(path), key="mounts", message="only the site may name mounts for all environments", hint=hint)
            )
        elif loaded.mounts:
            self.mounts.extend(loaded.mounts)
        for name, entry, line in loaded.entries:
            taken = self.environments.get(name)
            if own and taken is not None:
                self.problems.append(_name_taken(taken, path, line, source))
            else:
                self.environments[name] = _environment(name, entry, source, path, line)

    def _problems(self, problems: Iterable[Problem], own: bool) -> None:
        for problem in problems:
            self.problems.append(problem)
            if problem.environment and not own:
                self.environments.pop(problem.environment, None)

    def catalog(self) -> Catalog:
        """Return the result."""
        site = tuple(self.mounts)
        environments = [
            environment.model_copy(update={"mounts": (*site, *environment.mounts)}) if site else environment
            for environment in self.environments.values()
        ]
        return Catalog(tuple(environments), tuple(self.problems))


def _name_taken(taken: Environment, path: Path, line: int, source: Source) -> Problem:
    whose = {"shipped": "a shipped environment", "site": "an environment of the site", "user": "an environment of your own"}
    return Problem(
        file=str(path),
        line=line,
        key=f"environments.{taken.name}",
        message=f"the name is taken by {whose.get(taken.source, 'another environment')}",
        hint=f"choose another name, for example my-{taken.name}"
        if source == "user"
        else "choose another name in the project's catalogue",
    )


def _environment(name: str, entry: Entry, source: Source, path: Path, line: int) -> Environment:
    variants = {
        architecture: {accelerator: _located(variant, path.parent) for accelerator, variant in images.items()}
        for architecture, images in entry.variants.items()
    }
    fields = {key: getattr(entry, key) for key in Entry.model_fields if key != "variants"}
    return Environment.model_construct(name=name, source=source, file=str(path), line=line, variants=variants, **fields)


def _located(variant: Variant, folder: Path) -> Variant:
    """Make the paths of a variant absolute."""
    paths = {key: str(expanded(value, folder)) for key, value in _paths(variant)}
    return variant.model_copy(update=paths) if paths else variant


def _paths(variant: Variant) -> Iterator[tuple[str, str]]:
    for key in ("sif", "recipe"):
        value = getattr(variant, key)
        if value:
            yield key, str(value)
