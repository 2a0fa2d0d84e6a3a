"""Which kernel of the environment runs a notebook. Imports jupyter_client only when asked what there is."""

from __future__ import annotations

from typing import Dict, Mapping, Optional, Tuple

USUAL = {"python": ("python3", "python"), "r": ("ir",)}
"""Names that the kernels of a language usually have, tried in this order."""
TRANSLATED = ("python", "r")
"""Languages into which parameters can be written safely."""


class Refused(Exception):
    """The notebook cannot be run in this environment; the message says why and what to do."""


def available() -> Dict[str, str]:
    """Return the environment's kernels: name → language in lower case."""
    from jupyter_client.kernelspec import KernelSpecManager

    manager = KernelSpecManager()
    found = {}
    for name in manager.find_kernel_specs():
        try:
            found[name] = str(manager.get_kernel_spec(name).language).lower()
        except Exception:  # noqa: BLE001, S112 - a broken kernelspec is one that the environment does not have
            continue
    return found


def refuse(language: str, has_parameters: bool) -> None:
    """Refuse what would run unsafely: Julia, and parameters in a language without a safe translator.

    Raises
    ------
    Refused
        With the way out.
    """
    if language == "julia":
        raise Refused("Julia notebooks are not supported yet: text in parameters could run as code. Use Python or R")
    if has_parameters and language not in TRANSLATED:
        raise Refused(f"parameters can be given to Python and R notebooks, this one is in {language}: run it without")


def chosen(kernels: Mapping[str, str], wanted: Optional[str], language: str) -> Tuple[str, str]:
    """Return the kernel to use and a note for the user where it is another than the notebook names.

    Parameters
    ----------
    kernels
        Name → language.
    wanted
        The notebook's own kernel, if it names one.
    language
        In lower case.

    Raises
    ------
    Refused
        When the environment has no kernel for the language.
    """
    if wanted and wanted in kernels:
        return wanted, ""
    fitting = sorted(name for name, speaks in kernels.items() if speaks == language)
    usual = [name for name in USUAL.get(language, ()) if name in fitting]
    if not fitting:
        there = ", ".join(f"{name} ({speaks})" for name, speaks in sorted(kernels.items())) or "none"
        raise Refused(f"the environment has no kernel for {language}; its kernels: {there}. Choose another environment")
    name = (usual or fitting)[0]
    return name, f"kernel {wanted!r} is not in this environment: {name!r} was used" if wanted else ""
