"""Chooses the kernel that runs a notebook. `installed` alone imports jupyter_client."""

from __future__ import annotations

from typing import Dict, Mapping, Optional, Tuple

USUAL = {"python": ("python3", "python"), "r": ("ir",)}
"""Usual kernel names of a language, in order of preference."""
TRANSLATED = ("python", "r")
"""Languages in which parameters can be written safely."""


class KernelError(Exception):
    """The notebook cannot run in this environment; the message says why and what to do."""


def installed() -> Dict[str, str]:
    """Return the environment's kernels: name → language in lower case."""
    from jupyter_client.kernelspec import KernelSpecManager

    manager = KernelSpecManager()
    kernels = {}
    for name in manager.find_kernel_specs():
        try:
            kernels[name] = str(manager.get_kernel_spec(name).language).lower()
        except Exception:  # noqa: BLE001, S112 - a broken kernelspec counts as not installed
            continue
    return kernels


def check_language(language: str, has_parameters: bool) -> None:
    """Refuse what cannot run safely: Julia, and parameters in a language without a safe translator.

    Raises
    ------
    KernelError
        With a hint.
    """
    if language == "julia":
        raise KernelError("Julia notebooks are not supported yet: text in parameters could run as code. Use Python or R")
    if has_parameters and language not in TRANSLATED:
        raise KernelError(f"only Python and R notebooks take parameters, this one is in {language}: run it without")


def choose(kernels: Mapping[str, str], named: Optional[str], language: str) -> Tuple[str, str]:
    """Return the kernel to use, and a note for the user if the notebook names another one.

    Parameters
    ----------
    kernels
        Name → language.
    named
        The kernel that the notebook names, if any.
    language
        In lower case.

    Raises
    ------
    KernelError
        When the environment has no kernel for the language.
    """
    if named and named in kernels:
        return named, ""
    candidates = sorted(name for name, spoken in kernels.items() if spoken == language)
    usual = [name for name in USUAL.get(language, ()) if name in candidates]
    if not candidates:
        known = ", ".join(f"{name} ({spoken})" for name, spoken in sorted(kernels.items())) or "none"
        raise KernelError(f"the environment has no kernel for {language}; its kernels: {known}. Choose another environment")
    name = (usual or candidates)[0]
    return name, f"kernel {named!r} is not in this environment: {name!r} was used" if named else ""
