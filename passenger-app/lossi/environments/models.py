"""The content of a catalogue: small frozen models, each validator next to its field.

The JSON schema of `CatalogFile` is ``containers/catalog.schema.json`` (a test compares them). Imports only Pydantic; other
modules read files and check this machine.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from lossi.contract.text import CONTROL
from lossi.environments.paths import is_absolute

Architecture = Literal["x86_64", "aarch64"]
Accelerator = Literal["none", "cuda", "rocm"]
Source = Literal["shipped", "site", "project", "user"]

ARCHITECTURES: tuple[Architecture, ...] = ("x86_64", "aarch64")
ACCELERATORS: tuple[Accelerator, ...] = ("none", "cuda", "rocm")

# The grammar of the reference implementation (github.com/distribution/reference, regexp.go), without the digest.
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::[0-9]{1,5})?/)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
IMAGE = re.compile(rf"{_HOST}{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})?")


def _plain(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("contains a line break or another control character")
    return text


def _lines(text: str) -> str:
    if CONTROL.search(text.replace("\n", "").replace("\t", "")):
        raise ValueError("contains a control character")
    return text


def _path(text: str) -> str:
    if not _plain(text).strip():
        raise ValueError("is empty")
    return text


def _absolute(text: str) -> str:
    if not is_absolute(_path(text)):
        raise ValueError("is not an absolute path (or one starting with ~/)")
    return text


def _interpreter(text: str) -> str:
    return text if text == "auto" else _absolute(text)


def _image(text: str) -> str:
    bare = text.removeprefix("docker://")
    if "@" in bare:
        raise ValueError("the part after @ is the digest: write it under `digest`")
    if not IMAGE.fullmatch(bare) or len(bare) > 255:
        raise ValueError("is not an image reference such as registry.example/group/name:tag")
    return bare


def _variable(text: str) -> str:
    if text.startswith(("LOSSI_", "APPTAINER", "SINGULARITY")) or text in ("HOME", "PYTHONNOUSERSITE"):
        raise ValueError("is set by Lossi or by the container runtime and cannot be set here")
    return text


def _no_nul(text: str) -> str:
    if "\0" in text or re.search("[\ud800-\udfff]", text):
        raise ValueError("contains a character that is not allowed in an environment variable")
    return text


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Title = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_plain)]
Text = Annotated[str, StringConstraints(max_length=4000), AfterValidator(_lines)]
FilePath = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_path)]
AbsolutePath = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_absolute)]
InterpreterPath = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_interpreter)]
ImageReference = Annotated[str, StringConstraints(min_length=1, max_length=300), AfterValidator(_image)]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Distribution = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$")]
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+!_-]{0,62}$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$"), AfterValidator(_variable)]
VariableValue = Annotated[str, StringConstraints(max_length=32768), AfterValidator(_no_nul)]


class Frozen(BaseModel):
    """Base class of all models of a catalogue."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LocalPython(Frozen):
    """A Python of this machine."""

    python: InterpreterPath = Field(
        description="`auto` (the interpreter that runs Lossi), or the absolute path of an interpreter or of a venv's folder."
    )


class Variant(Frozen):
    """One image of an environment, for one architecture and accelerator."""

    image: ImageReference | None = Field(default=None, description="OCI reference without digest.")
    digest: Digest | None = Field(None, description="Digest recorded by build or pull; only a pinned image can run by reference.")
    sif: FilePath | None = Field(
        None, description="Apptainer image (SIF file or sandbox folder); relative paths start at the catalogue's folder."
    )
    recipe: FilePath | None = Field(
        default=None, description="Containerfile that builds the image; relative to the catalogue's folder."
    )
    frameworks: dict[Distribution, Version] = Field(default={}, description="Versions that differ from the environment's.")

    @model_validator(mode="after")
    def _something_to_run(self) -> Variant:
        if not (self.image or self.sif or self.recipe):
            raise ValueError("has no `image`, `sif` or `recipe`")
        if self.digest and not self.image:
            raise ValueError("has a `digest` but no `image`")
        return self


class Mount(Frozen):
    """A folder of the machine that containers of an environment see in addition to the project."""

    source: AbsolutePath = Field(description="Folder or file on the machine that runs the task.")
    target: AbsolutePath | None = Field(default=None, description="Path in the container (default: the same path).")
    read_only: bool = Field(default=False, description="Whether it is mounted read-only.")


class Entry(Frozen):
    """The entry of one environment in a catalogue."""

    title: Title = Field(description="Title in lists.")
    description: Text = Field(default="", description="What it is good for.")
    frameworks: dict[Distribution, Version] = Field(
        default={}, description="Main packages, by distribution name, with their versions (in quotes)."
    )
    local: LocalPython | None = Field(default=None, description="A Python of this machine that can be used without a container.")
    variants: dict[Architecture, dict[Accelerator, Variant]] = Field(
        default={}, description="Images by architecture and accelerator."
    )
    variables: dict[VariableName, VariableValue] = Field(default={}, description="Environment variables to set.")
    mounts: tuple[Mount, ...] = Field(default=(), description="More folders that its containers see.")

    @model_validator(mode="after")
    def _some_way(self) -> Entry:
        if self.local is None and not any(self.variants.values()):
            raise ValueError("needs a `local` Python or an image under `variants`")
        return self

    def variant(self, architecture: str, accelerator: str) -> Variant | None:
        """Return the image for one architecture and accelerator, if there is one."""
        return dict(self.variants.get(architecture, {})).get(accelerator)  # type: ignore[call-overload]

    def variant_names(self) -> list[str]:
        """Return ``<architecture>-<accelerator>`` of every image."""
        return [f"{architecture}-{accelerator}" for architecture, images in self.variants.items() for accelerator in images]


class Environment(Entry):
    """An environment of the merged catalogue, with absolute paths and its source."""

    name: Name
    source: Source = Field(description="Whose catalogue it is from.")
    file: str = Field(description="The catalogue's file.")
    line: int = Field(description="Line of the entry in that file, from 1.")


class CatalogFile(Frozen):
    """A catalogue file."""

    format: Literal[1] = Field(default=1, description="Version of the format.")
    mounts: tuple[Mount, ...] = Field(
        (), description="Folders that the containers of every environment see (the site's file only)."
    )
    environments: dict[Name, Entry] = Field(default={}, description="The environments by name.")


class Problem(Frozen):
    """A mistake in a catalogue; the valid entries around it stay usable."""

    file: str
    line: int | None = Field(default=None, description="From 1; null if the file cannot be read at all.")
    key: str = Field(default="", description="Dotted path of the key.")
    message: str
    hint: str = ""
    environment: str | None = Field(default=None, description="The environment that is left out or not replaced because of it.")

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        text = f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text


class Way(Frozen):
    """One way to start an environment, and whether it works on this machine."""

    target: Literal["local", "apptainer"]
    variant: str = Field(description="`local` or `<architecture>-<accelerator>`.")
    usable: bool = Field(description="Whether interpreter or image exist on this machine.")
    detail: str = Field(description="The interpreter or image, or what is missing.")


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a catalogue file."""
    form = CatalogFile.model_json_schema()
    _close(form)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **form}


def _close(schema_part: Any) -> None:
    """Disallow keys that match no pattern: Pydantic refuses them, but its schema does not say so."""
    if isinstance(schema_part, dict):
        if "patternProperties" in schema_part:
            schema_part.setdefault("additionalProperties", False)
        for value in schema_part.values():
            _close(value)
    elif isinstance(schema_part, list):
        for value in schema_part:
            _close(value)
