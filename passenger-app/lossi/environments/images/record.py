"""Records a built or pulled image in a catalogue: image, digest and SIF of one variant; everything else stays.

The site's catalogue is used if it can be written; otherwise the user's own, under a new name, because that cannot replace
shipped or site entries.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossi import settings
from lossi.environments import catalog
from lossi.environments.models import Entry, Environment
from lossi.errors import Conflict, InvalidInput
from lossi.files import yaml_edit


@dataclass(frozen=True)
class Place:
    """Where an image is recorded.

    Attributes
    ----------
    name
        The environment's name there.
    own
        Whether it is the user's own catalogue.
    """

    file: Path
    name: str
    own: bool


@dataclass(frozen=True)
class Image:
    """The recorded image of a variant. ``digest`` None: it is in no registry; ``sif`` None: none was made."""

    architecture: str
    accelerator: str
    image: str
    digest: str | None
    sif: Path | None
    frameworks: dict[str, str]


def place(environment: Environment, *, file: Path | None = None, own: bool = False) -> Place:
    """Return where to record an environment's images.

    Parameters
    ----------
    environment
        From the catalogue.
    file
        A catalogue file instead of the default.
    own
        The user's own catalogue, even if the site's can be written.

    Raises
    ------
    Conflict
        When the name for the user's own catalogue is taken.
    InvalidInput
        When both are given.
    """
    if file is not None and own:
        raise InvalidInput("--catalog and --own exclude each other", hint="pass one of them")
    if file is not None:
        return Place(file.absolute(), environment.name, file.absolute() == catalog.user_file().absolute())
    source = Path(environment.file)
    if environment.source in ("user", "project"):
        return Place(source, environment.name, environment.source == "user")
    if not own:
        # Never in the site file itself: other rooms have settings in it.
        candidates = [source] if environment.source == "site" and source != settings.site_file() else []
        for candidate in [*candidates, *settings.load().catalogs]:
            if _writable(candidate):
                return Place(candidate, environment.name, False)
    return _own(environment)


def record(place: Place, environment: Environment, image: Image) -> Environment | None:
    """Write the image into its catalogue and return the new entry.

    Returns
    -------
    Environment or None
        None: this Lossi does not read that file.

    Raises
    ------
    InvalidInput
        When the file cannot be parsed.
    Unavailable, Forbidden
        When it cannot be written.
    """
    values = {"image": image.image, "digest": image.digest, "sif": str(image.sif) if image.sif else None}
    known = {key: value for key, value in values.items() if value is not None}
    yaml_edit.edit_file(
        place.file, lambda data: _changes(data, place, environment, image, known), mode=0o600 if place.own else 0o644
    )
    entry = next((item for item in catalog.load().environments if item.name == place.name), None)
    variant = entry.variant(image.architecture, image.accelerator) if entry else None
    same = variant is not None and (variant.image, variant.digest, variant.sif) == tuple(values.values())
    return entry if same else None


def _changes(
    data: dict[str, Any], place: Place, environment: Environment, image: Image, known: dict[str, str]
) -> list[yaml_edit.Change]:
    entry = _below(data, ("environments", place.name))
    keys = ("environments", place.name)
    at = ("variants", image.architecture, image.accelerator)
    if not isinstance(entry, dict):
        return [(keys, _copied(environment, place, image, known))]
    variant = _below(entry, at)
    if not isinstance(variant, dict):
        return [((*keys, *at), _with_frameworks(known, image, entry))]
    changes: list[yaml_edit.Change] = [((*keys, *at, key), value) for key, value in known.items()]
    if stale := variant.keys() & {"digest", "sif"} - known.keys():
        # Otherwise these would still be those of the old image.
        rest = {key: value for key, value in variant.items() if key not in stale}
        return [((*keys, *at), {**rest, **known})]
    frameworks = _with_frameworks({}, image, entry).get("frameworks", variant.get("frameworks"))
    if frameworks != variant.get("frameworks"):
        changes.append(((*keys, *at, "frameworks"), frameworks))
    return changes


def _copied(environment: Environment, place: Place, image: Image, known: dict[str, str]) -> dict[str, Any]:
    """Return a new entry: the old one as written, with the new image of the variant."""
    raw = _raw(environment)
    entry: dict[str, Any] = raw.model_dump(mode="json", exclude_defaults=True, exclude={"variants"})
    variants: dict[str, dict[str, Any]] = {}
    if not place.own:
        for architecture, images in raw.variants.items():
            for accelerator, variant in images.items():
                # Recipes are found by name: the path of the installed version may be gone after an upgrade.
                written = variant.model_dump(mode="json", exclude_defaults=True, exclude={"recipe"})
                variants.setdefault(architecture, {})[accelerator] = written
    entry["variants"] = variants
    variants.setdefault(image.architecture, {})[image.accelerator] = _with_frameworks(known, image, entry)
    if place.own:
        entry.pop("local", None)
    return entry


def _with_frameworks(known: dict[str, Any], image: Image, entry: dict[str, Any]) -> dict[str, Any]:
    """Add the versions that differ from those of the entry."""
    general = entry.get("frameworks") or {}
    differing = {name: version for name, version in image.frameworks.items() if general.get(name) != version}
    return {**known, **({"frameworks": differing} if differing else {})}


def _raw(environment: Environment) -> Entry:
    """Return the entry as written: without the site's mounts, which are added to every environment."""
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
    """Return the place in the user's own catalogue; its name must be free or recorded there before."""
    name = environment.name if environment.name.startswith("my-") else f"my-{environment.name}"
    for other in catalog.load().environments:
        if other.name == name and other.source != "user":
            raise Conflict(
                f"the name {name!r} is taken by {other.file}",
                hint="pass the site's catalogue with --catalog, or use `lossi env add`",
            )
    return Place(catalog.user_file(), name, True)


def _writable(path: Path) -> bool:
    """Return whether this user may create or replace a file."""
    return os.access(path.parent, os.W_OK | os.X_OK) and (not path.exists() or os.access(path, os.W_OK))
