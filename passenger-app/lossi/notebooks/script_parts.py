"""Functions whose source is copied into scripts made from Python notebooks.

They run in the notebook's environment: Python 3.9 or later, standard library, IPython only if a cell needs it. Each must work
without this module; so annotations that need an import are in quotes.
"""

from typing import Any


def _parse_args(about: str, parameters: "list[tuple[str, str, bool, bool, str]]") -> "dict[str, Any]":
    """Return the parameters set on the command line, by name.

    `parameters` has (name, type, required, optional, help) of each. Flags can be written with dashes or underscores.
    """
    import argparse
    import json
    import sys

    class Value:
        def __init__(self, kind: str, optional: bool) -> None:
            self.kind, self.optional = kind, optional

        def __call__(self, text: str) -> "Any":
            word = text.strip().lower()
            if self.kind == "str":
                return text
            if self.optional and word in ("none", "null"):
                return None
            if self.kind == "bool" and word in ("true", "yes", "on", "1", "false", "no", "off", "0"):
                return word in ("true", "yes", "on", "1")
            try:
                if self.kind in ("int", "float"):
                    return int(text) if self.kind == "int" else float(text)
                words = {"True": "true", "False": "false", "None": "null", "nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
                value = json.loads(words.get(text.strip(), text))
            except ValueError:
                if self.kind == "any":
                    return text
                value = None
            if self.kind == "any" or isinstance(value, {"list": list, "dict": dict}.get(self.kind, ())):
                return value
            expected = {
                "int": "a whole number",
                "float": "a number",
                "bool": "true or false",
                "list": "a JSON list",
                "dict": "a JSON object",
            }
            raise argparse.ArgumentTypeError(f"expected {expected[self.kind]}, not {text[:60]!r}")

    about = about.replace("%", "%%") if "%(prog)" in about else about
    parser = argparse.ArgumentParser(description=about, allow_abbrev=False, add_help=False)
    names = [item[0] for item in parameters]
    parser.add_argument("-h", *([] if "help" in names else ["--help"]), action="help", help="show this help")
    taken = {"--help", *("--" + name for name in names)}
    for name, kind, _, _, _ in parameters:
        if kind == "bool":
            taken |= {"--no-" + name, "--no-" + name.replace("_", "-")}
    valued = set()
    for name, kind, required, optional, text in parameters:
        dashed = name.replace("_", "-")
        flags = ["--" + name] if "--" + dashed in taken or name[0] == "_" else ["--" + dashed, "--" + name]
        common: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
        if kind == "bool":
            group = parser.add_mutually_exclusive_group(required=required)
            group.add_argument(*flags, nargs="?", const=True, type=Value(kind, optional), metavar="true|false", **common)
            common["help"] = "the opposite"
            group.add_argument(*dict.fromkeys(("--no-" + dashed, "--no-" + name)), action="store_false", **common)
        else:
            parser.add_argument(*flags, required=required, type=Value(kind, optional), metavar=kind.upper(), **common)
            valued.update(flags)
    arguments = []
    rest = iter(sys.argv[1:])
    for argument in rest:
        # Joined, because a value may start with a minus sign.
        value = next(rest, None) if argument in valued else None
        arguments.append(argument if value is None else argument + "=" + value)
    values = vars(parser.parse_args(arguments))
    # The cells come from a notebook and expect no arguments.
    del sys.argv[1:]
    return values


def _start_ipython(names: "dict[str, Any]") -> "Any":
    """Return `get_ipython` of an IPython shell that uses these names, for magics and shell lines."""
    import sys

    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell.instance(config=config, user_module=sys.modules[names["__name__"]], user_ns=names)
    return shell.get_ipython


class _Cells:
    """Runs cells that a plain script cannot: they use top-level await, need a running event loop or may fail."""

    def __init__(self, names: "dict[str, Any]") -> None:
        import asyncio

        self.names = names
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)

    def run(self, number: int, source: str, may_fail: bool = False) -> None:
        import ast
        import inspect
        import linecache
        import traceback

        name = f"<cell {number}>"
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)

        async def in_the_loop() -> None:
            code = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, self.names)  # noqa: S307 - the notebook's own cell
            if inspect.iscoroutine(result):
                await result

        try:
            self.loop.run_until_complete(in_the_loop())
        except Exception:
            if not may_fail:
                raise
            traceback.print_exc()
