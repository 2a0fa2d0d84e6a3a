"""The ``lossi`` command: translates between the command line and the rooms, never decides.

Exit codes: 0 success; 1 the job or the check failed; 2 invalid request; 3 not found; 4 not allowed or in conflict;
5 something needed is not available (scheduler, store, disk space); 130 interrupted.
"""

from __future__ import annotations

import os
import sys

from lossi.errors import LossiError


def main(arguments: list[str] | None = None) -> None:
    """Run the command with ``arguments`` (default: the process's own) and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    from lossi.cli import output
    from lossi.cli.commands import build

    as_json = "--json" in arguments[: arguments.index("--")] if "--" in arguments else "--json" in arguments
    try:
        result = build()(args=arguments, prog_name="lossi", standalone_mode=True)
        code = result if isinstance(result, int) else 0
    except LossiError as error:
        code = output.failure(error, as_json=as_json)
    except KeyboardInterrupt:
        output.note("interrupted")
        code = 130
    except BrokenPipeError:
        # The reader of our output is gone (`lossi runs list | head`): not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        code = output.failure(_from_os_error(error), as_json=as_json)
    except Exception as error:
        code = output.failure(_unexpected(error), as_json=as_json)
    sys.exit(code)


def _from_os_error(error: OSError) -> LossiError:
    from pathlib import Path

    from lossi.files import atomic

    if error.filename:
        return atomic.explained(error, Path(os.fsdecode(error.filename)))
    return LossiError("a system call failed", why=error.strerror or str(error), hint="check disk space and permissions")


def _unexpected(error: Exception) -> LossiError:
    """Save the traceback for a bug report instead of showing it."""
    import tempfile
    import traceback

    descriptor, path = tempfile.mkstemp(prefix="lossi-fault-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write("".join(traceback.format_exception(error)))
    return LossiError(
        "something unexpected happened",
        why=f"{type(error).__name__}: {error}".splitlines()[0][:300],
        hint=f"this is a bug in Lossi: please report it with {path}",
    )
