"""The merged catalogue: shipped, then the site's files, then the project's and the user's own.

The site's entry replaces a shipped one of the same name. Entries of a user or project need their own names: one under a taken
name is listed as a problem, and the other one stays. An invalid entry is listed too; if it should replace another one, that
name is unusable until it is corrected, because silently running something else would be worse. Reads files, starts nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
    """The environments, and the mistakes in the catalogues.

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
            When there is none; the hint has the closest name.
        InvalidInput
            When its entry is not valid.
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
        A project whose ``.lossi/catalog.yml`` is merged too.
    """
    merged = _Merged()
    merged.add(shipped_file(), "shipped")
    try:
        catalogs = settings.load().catalogs
    except InvalidInput as error:
        catalogs = ()
        merged.problems.append(Problem(file=str(settings.site_file()), message=error.what + f": {error.why}", hint=error.hint))
    for path in catalogs:
        merged.add(path, "site", must_exist=True)
    merged.add(settings.site_file(), "site", section="environments")
    # The user's before the project's: if both use a name, the user's is kept.
    merged.add(user_file(), "user")
    if project_root is not None:
        merged.add(project_file(project_root), "project")
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
    """One file: its valid entries, and a problem for each other one."""

    entries: tuple[tuple[str, Entry, int], ...] = ()
    mounts: tuple[Mount, ...] = ()
    problems: tuple[Problem, ...] = ()
    missing: bool = False


def load_file(path: Path, section: str | None = None) -> Loaded:
    """Load one file; ``section`` is the key of the environments in a larger file."""
    try:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    except OSError:
        stamp = (0, 0, 0)  # reading it tells why
    return _load_file(path, section, stamp)


@functools.lru_cache(maxsize=32)
def _load_file(path: Path, section: str | None, stamp: tuple[int, int, int]) -> Loaded:
    try:
        file = document.read(path)
    except document.Unreadable as error:
        return Loaded(problems=(Problem(file=str(path), line=error.line, key=error.key, message=error.message, hint=error.hint),))
    if file is None:
        return Loaded(missing=True)
    data = file.data
    if section is not None:  # other rooms read the rest of the site file
        data = {"environments": data[section]} if isinstance(data, dict) and section in data else None
    if data is None:
        return Loaded()
    if not isinstance(data, dict):
        return Loaded(
            problems=(
                Problem(file=str(path), line=1, message="is not a mapping", hint="write `environments:` on its first line"),
            )
        )
    return _validate(path, file, data)


def _validate(path: Path, file: document.Document, data: dict[str, Any]) -> Loaded:
    """Validate each environment separately, so that the valid ones stay usable."""
    problems: list[Problem] = []
    named = data.get("environments")
    entries: list[tuple[str, Entry, int]] = []
    for name, value in named.items() if isinstance(named, dict) else ():
        try:
            checked = CatalogFile.model_validate({"environments": {name: {} if value is None else value}})
        except ValidationError as error:
            problems.extend(messages.problems(error, path, file, environment=name))
        else:
            entries.append((name, checked.environments[name], file.line(("environments", name))))
    rest = {
        key: value for key, value in data.items() if not (key == "environments" and (isinstance(value, dict) or value is None))
    }
    mounts: tuple[Mount, ...] = ()
    try:
        mounts = CatalogFile.model_validate(rest).mounts
    except ValidationError as error:
        problems.extend(messages.problems(error, path, file))
    return Loaded(tuple(entries), mounts, tuple(problems))


class _Merged:
    """The catalogue while files are merged."""

    def __init__(self) -> None:
        self.environments: dict[str, Environment] = {}
        self.mounts: list[Mount] = []
        self.problems: list[Problem] = []

    def add(self, path: Path, source: Source, *, section: str | None = None, must_exist: bool = False) -> None:
        """Merge one file."""
        loaded = load_file(path, section)
        if loaded.missing and must_exist:
            self.problems.append(Problem(file=str(path), message="does not exist", hint="correct `catalogs` in the site file"))
        if loaded.missing and source == "shipped":
            self.problems.append(
                Problem(
                    file=str(path), message="does not exist", hint="this installation of Lossi is incomplete: install it again"
                )
            )
        own = source in ("user", "project")
        self._problems(loaded.problems, own)
        if loaded.mounts and own:
            hint = "move `mounts` to the environments that need them"
            self.problems.append(
                Problem(file=str(path), key="mounts", message="only the site may set mounts for all environments", hint=hint)
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
    whose = {"shipped": "a shipped environment", "site": "an environment of the site", "user": "one of your own environments"}
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
    """Return a variant with absolute paths."""
    paths = {key: str(expanded(value, folder)) for key, value in _paths(variant)}
    return variant.model_copy(update=paths) if paths else variant


def _paths(variant: Variant) -> Iterator[tuple[str, str]]:
    for key in ("sif", "recipe"):
        value = getattr(variant, key)
        if value:
            yield key, str(value)
