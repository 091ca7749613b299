"""What all commands share: how they are started, how they fail, and with which exit code.

A command is a function `command(argv) -> int | None` in an entry module that ends in `cli.run(command)`.
"""

import argparse
import errno
import logging
import os
import pathlib
import sys
from collections.abc import Callable

from imagenet_jax.errors import RunError, UserError

FINISHED = 0
FAILED = 1  # the run failed
USER_MISTAKE = 2  # argparse uses the same code
PARTLY = 3  # finished, with part of the input left out
INTERRUPTED = 130  # SIGINT (128 + 2), after saving where there is something to save
TERMINATED = 143  # SIGTERM (128 + 15), likewise
REQUEUED = 138  # SIGUSR1 (128 + 10 on Linux), which SLURM sends before a job's end, likewise
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # wherever it is met, it is the disk's fault, not ours

PATHS = (errno.ENAMETOOLONG, errno.EACCES)  # and here that of the path, which the user named


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser whose --help shows `description` as written; flags are spelt in full, so that a typo is an error."""
    return argparse.ArgumentParser(
        prog=f"python -m imagenet_jax.{prog}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def path(text: str) -> pathlib.Path:
    """The type of a flag that names a file or folder: of `--flag=~/x`, shells leave the ~ to us."""
    return pathlib.Path(os.path.expanduser(text))


def new_file(text: str) -> pathlib.Path:
    """The type of a flag that names a file to write. Raises UserError, before any work, where it cannot be one."""
    file = path(text)
    if not file.absolute().parent.is_dir():
        raise UserError(f"{file} cannot be written: its folder does not exist.")
    if file.is_dir():
        raise UserError(f"{file} cannot be written: it is a folder. Name a file in it.")
    return file


def run(command: Callable[[list[str]], int | None]) -> None:
    """Run `command(sys.argv[1:])` and leave the process with one of the exit codes above.

    A `UserError` or `RunError` ends in its one message on stderr, as does what the disk or a path is to blame for. Anything else
    is a fault of ours and keeps its traceback.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        code = command(sys.argv[1:]) or FINISHED
    except UserError as error:
        code = _say(error, USER_MISTAKE)
    except RunError as error:
        code = _say(error, FAILED)
    except KeyboardInterrupt:
        code = _say("Interrupted.", INTERRUPTED)
    except BrokenPipeError:  # `| head`: the reader went away before the end
        code = FAILED
    except OSError as error:
        if error.errno in PATHS and error.filename:
            code = _say(f"{error.strerror}: {error.filename}. Name another path, or ask for access to it.", USER_MISTAKE)
        elif error.errno in DISK:
            code = _say(f"{error.strerror}{f': {error.filename}' if error.filename else ''}. Make room, and run it again.", FAILED)
        else:
            raise
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def printable(text: object) -> str:
    """Names of files and classes come from outside: no escape sequence of theirs reaches the terminal."""
    shown = str(text)
    return shown if shown.isprintable() else ascii(shown)


def _say(message: object, code: int) -> int:
    sys.stdout.flush()
    print(f"{'error: ' if code in (FAILED, USER_MISTAKE) else ''}{message}", file=sys.stderr, flush=True)
    return code
