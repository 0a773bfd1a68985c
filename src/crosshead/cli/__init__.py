"""The command line. One file a command; each imports what it needs when it runs, so that ``--help`` is quick."""

import os
import sys
from collections.abc import Sequence

from crosshead.text import printable

__all__ = ["main"]

EXIT_USER_ERROR = 2
_EXTRAS = {
    "wandb": "wandb",
    "mlflow": "mlflow",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
}  # all else comes with training
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
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if args.traceback or not _is_the_users(error):
            raise
        for line in _message(error).splitlines():
            print(f"crosshead {args.command}: {line}", file=sys.stderr)
        return EXIT_USER_ERROR


def _is_the_users(error: Exception) -> bool:
    return not isinstance(error, ModuleNotFoundError) or not str(error.name).startswith("crosshead")


def _message(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            f"the package {error.name!r} is not installed; install the extra: "
            f"pip install 'crosshead[{_EXTRAS.get(str(error.name).partition('.')[0], 'train')}]'"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{printable(str(error.filename))}: {error.strerror}" if error.filename else error.strerror
    return str(error)
