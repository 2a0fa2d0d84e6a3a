"""``lossi env`` and ``lossi exec``: list, check and add environments, register kernels, run a command in an environment."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lossi.cli import environment_images, options, output

if TYPE_CHECKING:
    from lossi.contract.records import ResolvedEnvironment
    from lossi.environments import Catalog, Environment

app = typer.Typer(no_args_is_help=True)
app.command("build")(environment_images.build)
app.command("pull")(environment_images.pull)
app.command("verify")(environment_images.verify)

Name = Annotated[str, typer.Argument(help="Name of the environment.", show_default=False)]
Target = Annotated[str, typer.Option("--target", help="local, apptainer, or auto: what works here.")]
Accelerator = Annotated[str, typer.Option("--accelerator", help="none, cuda or rocm.")]


@app.command("list")
def list_environments(project: options.Project = None, as_json: options.Json = False) -> None:
    """List the environments, how each can be process here, and mistakes in the catalogues."""
    from lossi import environments

    catalog = _catalog(project)
    ways = {environment.name: environments.ways(environment) for environment in catalog.environments}

    def render() -> None:
        rows = []
        for environment in catalog.environments:
            usable = [way.variant for way in ways[environment.name] if way.usable]
            frameworks = ", ".join(f"{name} {version}" for name, version in environment.frameworks.items())
            rows.append(
                [environment.name, environment.title, frameworks, ", ".join(usable) or "not built here", environment.source]
            )
        output.show_table(("name", "title", "frameworks", "usable here", "from"), rows, empty="The catalogue is empty.")
        _note_problems(catalog)

    data = [{**environment.model_dump(mode="json"), "ways": ways[environment.name]} for environment in catalog.environments]
    output.emit({"environments": data, "problems": catalog.problems}, as_json, render)


@app.command("show")
def show(name: Name, project: options.Project = None, as_json: options.Json = False) -> None:
    """Show one environment: its images, its local Python and its catalogue."""
    from lossi import environments

    environment = _catalog(project).get(name)
    ways = environments.ways(environment)

    def render() -> None:
        output.say(f"{environment.name}: {environment.title}")
        if environment.description:
            output.say(environment.description.strip())
        output.say(f"from {environment.file}, line {environment.line} ({environment.source})")
        for package, version in environment.frameworks.items():
            output.say(f"  {package} {version}")
        rows = [[way.variant, "yes" if way.usable else "no", way.detail] for way in ways]
        output.show_table(("variant", "usable here", "interpreter or image, or what is missing"), rows)
        for key, value in environment.variables.items():
            output.say(f"sets {key}={value}")
        for mount in environment.mounts:
            output.say(
                f"mounts {mount.source}"
                + (f" at {mount.target}" if mount.target else "")
                + (", read-only" if mount.read_only else "")
            )

    output.emit({**environment.model_dump(mode="json"), "ways": ways}, as_json, render)


@app.command("check")
def check(
    name: Name,
    target: Target = "auto",
    accelerator: Accelerator = "none",
    project: options.Project = None,
    as_json: options.Json = False,
) -> None:
    """Start an environment and test that it has what tasks need, with a remedy for each fault. Exit code 1 for a fault."""
    from lossi import environments

    environment = _catalog(project).get(name)
    resolved = environments.resolve(environment, target=target, accelerator=accelerator)
    if not as_json:
        output.note(f"starting {name} ({_what(resolved)}); this takes some seconds")
    checks = environments.check(resolved, frameworks=_promised(environment, resolved))
    good = all(check.ok for check in checks)

    def render() -> None:
        rows = [["ok" if check.ok else "FAULT", check.name, check.detail] for check in checks]
        output.show_table(("", "test", "result"), rows)
        for check in checks:
            if not check.ok:
                output.say(f"{check.name}: {check.remedy}")
        output.say(f"{name} has everything that tasks need" if good else f"{name} cannot run tasks yet")

    output.emit({"environment": resolved, "ok": good, "checks": checks}, as_json, render)
    if not good:
        raise typer.Exit(1)


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="A new name.", show_default=False)],
    title: Annotated[str, typer.Option("--title", help="Title in lists (default: the name).")] = "",
    python: Annotated[str | None, typer.Option("--python", help="An interpreter or a venv's folder, or auto.")] = None,
    sif: Annotated[str | None, typer.Option("--sif", help="An Apptainer image.")] = None,
    image: Annotated[str | None, typer.Option("--image", help="An OCI reference; run without --sif only with --digest.")] = None,
    digest: Annotated[str | None, typer.Option("--digest", help="sha256:… of the image.")] = None,
    accelerator: Annotated[str, typer.Option("--accelerator", help="What the image is built for: none, cuda or rocm.")] = "none",
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="x86_64 or aarch64 (default: the SIF's, or this machine's).")
    ] = None,
    description: Annotated[str, typer.Option("--description", help="What it is good for.")] = "",
    as_json: options.Json = False,
) -> None:
    """Add your own environment (a Python, a SIF file or an image) to your catalogue."""
    from lossi import environments

    environment = environments.add(
        name,
        title=title or name,
        python=python,
        sif=sif,
        image=image,
        digest=digest,
        accelerator=accelerator,
        architecture=architecture,
        description=description,
    )

    def render() -> None:
        output.say(f"{name} is in {environment.file}. Next: lossi env check {name}")

    output.emit(environment, as_json, render)


@app.command("kernelspec")
def kernelspec(
    name: Name,
    install: Annotated[bool, typer.Option("--install", help="Register it for yourself.")] = False,
    prefix: Annotated[
        Path | None, typer.Option("--prefix", help="Register it in this folder, for all users of its Jupyter.")
    ] = None,
    target: Target = "auto",
    accelerator: Accelerator = "none",
    bind: Annotated[
        list[Path] | None,
        typer.Option("--bind", help="A folder to mount in the container in addition to the user's home; may be repeated."),
    ] = None,
    project: options.Project = None,
    as_json: options.Json = False,
) -> None:
    """Register an environment as a Jupyter kernel; without --install or --prefix, print the kernel.json."""
    from lossi import environments
    from lossi.environments import kernelspec as kernels
    from lossi.errors import InvalidInput

    if install and prefix is not None:
        raise InvalidInput("--install and --prefix exclude each other", hint="pass one of them")
    environment = _catalog(project).get(name)
    resolved = environments.resolve(environment, target=target, accelerator=accelerator)
    spec = kernels.kernelspec(environment, resolved, [path.absolute() for path in bind or []])
    folder = None
    if install or prefix is not None:
        folder = kernels.install(spec, kernels.kernel_name(resolved), prefix.absolute() if prefix else None)

    def render() -> None:
        if folder is None:
            output.say(json.dumps(spec, indent=1, ensure_ascii=False))
            return
        output.say(f"{spec['display_name']} is in {folder}. Reload Jupyter to select it")

    output.emit({"kernelspec": spec, "folder": folder}, as_json, render)


def exec_command(
    environment: Annotated[str, typer.Argument(metavar="ENV", help="Name of the environment.", show_default=False)],
    command: Annotated[list[str], typer.Argument(metavar="-- CMD…", help="Program and arguments.", show_default=False)],
    show: Annotated[bool, typer.Option("--show", help="Print the complete command instead of running it.")] = False,
    bind: Annotated[
        list[Path] | None, typer.Option("--bind", help="A folder to mount in the container; may be repeated.")
    ] = None,
    target: Target = "auto",
    accelerator: Accelerator = "none",
    project: options.Project = None,
    as_json: options.Json = False,
) -> None:
    """Run a command in an environment on this machine. Exit code: the command's."""
    from lossi import environments

    resolved = environments.resolve(_catalog(project).get(environment), target=target, accelerator=accelerator)
    argv = _full_argv(resolved, command, project, bind or [])
    if show:
        output.emit(argv, as_json, lambda: output.say(shlex.join(argv)))
        return
    variables = environments.clean_environment(resolved, {})
    if resolved.kind == "local":
        _replace_process(argv, variables)
    argv[0] = environments.runtime()
    raise typer.Exit(_run_contained(argv, variables))


def _full_argv(resolved: ResolvedEnvironment, command: list[str], project: str | None, bind: list[Path]) -> list[str]:
    """Return the complete argv; a container sees the project (or the current folder) and starts in the current folder if it can."""
    from lossi import environments

    if resolved.kind == "local":
        return environments.command(resolved, command)
    folder = _working_folder()
    root = _root(project, folder)
    cwd = folder if folder.is_relative_to(root) else root
    return environments.command(resolved, command, binds=[root, *(path.absolute() for path in bind)], cwd=cwd)


def _replace_process(argv: list[str], variables: dict[str, str]) -> None:
    """Replace this process by the command, so that signals, terminal and exit code are its own."""
    from lossi.errors import NotFound

    try:
        os.execvpe(argv[0], argv, variables)  # noqa: S606
    except FileNotFoundError:
        raise NotFound(
            f"there is no program {argv[0]!r} in this environment", hint="check its spelling, or pass its full path"
        ) from None
    except PermissionError:
        raise NotFound(f"{argv[0]!r} cannot be executed", hint="check its permissions") from None


def _run_contained(argv: list[str], variables: dict[str, str]) -> int:
    """Run a container with a private folder for its HOME and /tmp, and return the exit code (128 + signal)."""
    from lossi import settings

    with tempfile.TemporaryDirectory(prefix="lossi-exec-", dir=settings.temporary_dir(), ignore_cleanup_errors=True) as folder:
        # The terminal sends Ctrl-C to the whole group: the container handles it, we wait.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process = subprocess.Popen(argv, env={**variables, "APPTAINER_WORKDIR": folder}, preexec_fn=_interruptible)
            signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            code = process.wait()
        finally:
            signal.signal(signal.SIGINT, previous)
    return code if code >= 0 else 128 - code


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _working_folder() -> Path:
    from lossi.errors import NotFound

    try:
        return Path.cwd()
    except FileNotFoundError:
        raise NotFound("the current folder does not exist any more", hint="cd to another one") from None


def _root(project: str | None, folder: Path) -> Path:
    """Return the project's folder, or the current one without a project."""
    from lossi import projects
    from lossi.errors import NotFound

    if project:
        return options.project(project).root
    try:
        return projects.find(folder).root
    except NotFound:
        return folder


def _catalog(project: str | None) -> Catalog:
    from lossi import environments, projects
    from lossi.errors import NotFound

    if project:
        return environments.load(options.project(project).root)
    try:
        return environments.load(projects.find(_working_folder()).root)
    except NotFound:
        return environments.load()


def _note_problems(catalog: Catalog) -> None:
    for problem in catalog.problems:
        output.note(f"left out: {problem}")


def _what(resolved: ResolvedEnvironment) -> str:
    return resolved.python if resolved.kind == "local" else str(resolved.sif or resolved.image)


def _promised(environment: Environment, resolved: ResolvedEnvironment) -> dict[str, str]:
    """Return the frameworks that the catalogue promises for the resolved variant."""
    promised: dict[str, str] = dict(environment.frameworks)
    if resolved.kind != "local":
        architecture, _, accelerator = resolved.variant.partition("-")
        variant = environment.variant(architecture, accelerator)
        promised.update(variant.frameworks if variant else {})
    return promised
