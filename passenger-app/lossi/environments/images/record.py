"""Writing into a catalogue which image was built or pulled: image, digest and SIF of one variant, all else as it was.

Where: in the catalogue of the site, for those who may write it; otherwise in the user's own, under a name of its own, because a
shipped or a site's entry cannot be replaced there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossi import settings
from lossi.environments import catalog, catalog_text
from lossi.environments.models import Entry, Environment
from lossi.errors import Conflict, InvalidInput


@dataclass(frozen=True)
class Place:
    """Where an image is recorded.

    Attributes
    ----------
    name
        Of the environment there.
    own
        Whether it is the user's own catalogue.
    """

    file: Path
    name: str
    own: bool


@dataclass(frozen=True)
class Image:
    """What is recorded of one variant; ``digest`` None: it is in no registry; ``sif`` None: none was made."""

    architecture: str
    accelerator: str
    image: str
    digest: str | None
    sif: Path | None
    frameworks: dict[str, str]


def place(environment: Environment, *, file: Path | None = None, own: bool = False) -> Place:
    """Return where an environment's images are recorded.

    Parameters
    ----------
    environment
        From the catalogue.
    file
        A catalogue file, instead of what would be chosen.
    own
        The user's own catalogue, also where the site's could be written.

    Raises
    ------
    Conflict
        When the user's own catalogue would need a name that is taken.
    InvalidInput
        When both are asked for.
    """
    if file is not None and own:
        raise InvalidInput("a file and the own catalogue are two places", hint="name one of them")
    if file is not None:
        return Place(file.absolute(), environment.name, file.absolute() == catalog.user_file().absolute())
    said = Path(environment.file)
    if environment.source in ("user", "project"):
        return Place(said, environment.name, environment.source == "user")
    if not own:
        # An entry of the site file's own section stays there only as long as nothing is built: that file belongs to many rooms.
        candidates = [said] if environment.source == "site" and said != settings.site_file() else []
        for candidate in [*candidates, *settings.load().catalogs]:
            if _writable(candidate):
                return Place(candidate, environment.name, False)
    return _own(environment)


def record(where: Place, environment: Environment, image: Image) -> Environment | None:
    """Write the image into its catalogue and return the environment as the catalogue has it now.

    Returns
    -------
    Environment or None
        None: the file is none of those that are read here.

    Raises
    ------
    InvalidInput
        When the file is broken.
    Unavailable, Forbidden
        When it cannot be written.
    """
    values = {"image": image.image, "digest": image.digest, "sif": str(image.sif) if image.sif else None}
    known = {key: value for key, value in values.items() if value is not None}
    catalog_text.change(
        where.file, lambda data: _changes(data, where, environment, image, known), mode=0o600 if where.own else 0o644
    )
    found = next((item for item in catalog.load().environments if item.name == where.name), None)
    variant = found.variant(image.architecture, image.accelerator) if found else None
    same = variant is not None and (variant.image, variant.digest, variant.sif) == tuple(values.values())
    return found if same else None


def _changes(
    data: dict[str, Any], where: Place, environment: Environment, image: Image, known: dict[str, str]
) -> list[catalog_text.Change]:
    there = (data.get("environments") or {}).get(where.name)
    keys = ("environments", where.name)
    at = ("variants", image.architecture, image.accelerator)
    if not isinstance(there, dict):
        return [(keys, _copied(environment, where, image, known))]
    variant = _below(there, at)
    if not isinstance(variant, dict):
        return [((*keys, *at), _with_frameworks(known, image, there))]
    changes: list[catalog_text.Change] = [((*keys, *at, key), value) for key, value in known.items()]
    if stale := variant.keys() & {"digest", "sif"} - known.keys():
        # What is not known of the new image would name the old one.
        rest = {key: value for key, value in variant.items() if key not in stale}
        return [((*keys, *at), {**rest, **known})]
    wanted = _with_frameworks({}, image, there).get("frameworks", variant.get("frameworks"))
    if wanted != variant.get("frameworks"):
        changes.append(((*keys, *at, "frameworks"), wanted))
    return changes


def _copied(environment: Environment, where: Place, image: Image, known: dict[str, str]) -> dict[str, Any]:
    """Return a new entry: the old one as it was written, with what is known now of the one variant."""
    raw = _raw(environment)
    entry: dict[str, Any] = raw.model_dump(mode="json", exclude_defaults=True, exclude={"variants"})
    variants: dict[str, dict[str, Any]] = {}
    if not where.own:
        for architecture, images in raw.variants.items():
            for accelerator, variant in images.items():
                # A recipe is that of the installed version, found by name: its path may be gone after an upgrade.
                written = variant.model_dump(mode="json", exclude_defaults=True, exclude={"recipe"})
                variants.setdefault(architecture, {})[accelerator] = written
    entry["variants"] = variants
    variants.setdefault(image.architecture, {})[image.accelerator] = _with_frameworks(known, image, entry)
    if where.own:
        entry.pop("local", None)
    return entry


def _with_frameworks(known: dict[str, Any], image: Image, entry: dict[str, Any]) -> dict[str, Any]:
    """Add the versions in which the image differs from what the entry says of all variants."""
    general = entry.get("frameworks") or {}
    differing = {name: version for name, version in image.frameworks.items() if general.get(name) != version}
    return {**known, **({"frameworks": differing} if differing else {})}


def _raw(environment: Environment) -> Entry:
    """Return the entry as its file has it: without the site's mounts, which are added to every environment."""
    section = "environments" if Path(environment.file) == settings.site_file() else None
    for name, entry, _line in catalog.load_file(Path(environment.file), section).entries:
        if name == environment.name:
            return entry
    return environment


def _below(data: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _own(environment: Environment) -> Place:
    """Return the place in the user's own catalogue, where the name must be a free one, or one that was recorded before."""
    name = environment.name if environment.name.startswith("my-") else f"my-{environment.name}"
    for other in catalog.load().environments:
        if other.name == name and other.source != "user":
            raise Conflict(
                f"the name {name!r} is taken by {other.file}",
                hint="name the site's catalogue with --catalog, or add it with `lossi env add`",
            )
    return Place(catalog.user_file(), name, True)


def _writable(path: Path) -> bool:
    """Return whether this user may replace a file, or make it."""
    return os.access(path.parent, os.W_OK | os.X_OK) and (not path.exists() or os.access(path, os.W_OK))
