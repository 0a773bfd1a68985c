"""The command line. One file a command; each imports what it needs when it runs, so that ``--help`` is quick."""

import os
import sys
from collections.abc import Sequence

from crosshead.files import printable
from crosshead.libraries import extra_of, mismatch

__all__ = ["main"]

EXIT_USER_ERROR = 2
EXIT_BAD_NUMBERS = 65  # as ``train.EXIT_BAD_NUMBERS``, which torch is needed to import
EXIT_INTERRUPTED = 130  # what a shell reports for SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    What the user can put right (``ValueError``, a file that isn't there, a missing extra) is one clean line
    on stderr and code 2; everything else is a fault of this program and keeps its traceback.
    """
    from crosshead.cli.terminal.streams import escaped_output, make_printable, open_closed_streams

    open_closed_streams()
    make_printable(sys.stdout, sys.stderr)
    with escaped_output():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    from crosshead.cli.arguments.parser import (
        parse,  # here: it imports every command, and they import from this package
    )

    args = parse(sys.argv[1:] if argv is None else list(argv))
    try:
        return args.run(args)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        message = _message(error)
        if args.traceback or message is None:
            raise
        for line in message.splitlines():
            print(f"crosshead {args.command}: {line}", file=sys.stderr)
        return EXIT_USER_ERROR


def _message(error: Exception) -> str | None:
    """What the user can put right, in one line or a line a mistake; None of a fault of this program."""
    if (sentence := mismatch(error)) is not None:
        return sentence
    if isinstance(error, ModuleNotFoundError):
        package = str(error.name)
        if package.startswith("crosshead"):
            return None
        return (
            f"the package {error.name!r} is not installed; install the extra: "
            f"pip install 'crosshead[{extra_of(package)}]'"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{printable(str(error.filename))}: {error.strerror}" if error.filename else error.strerror
    return str(error) if isinstance(error, ValueError | OSError) else None
