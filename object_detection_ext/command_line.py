# SPDX-License-Identifier: Apache-2.0
"""How command lines end: each error in words, with a status; nothing that a terminal would obey."""

import contextlib
import re
import sys
from collections.abc import Iterator, Sequence

from absl import logging

from object_detection_ext import errors, files, printable

FAILED = 1
WRONG_INPUT = 2


@contextlib.contextmanager
def ending(*of_the_input: type[Exception], wrong_input: int = WRONG_INPUT) -> Iterator[None]:
    """Surrounds what a command line does.

    What it prints passes through `printable.in_lines`. Errors of the input, and of files, end the
    process with `error: ...` on standard error, and with status 1 if a disk is full or broken, or a
    server fails.

    Args:
        *of_the_input: errors that are reported so, beside `errors.InputError` and `OSError`.
        wrong_input: the status that all others end with.
    """
    with printing():
        try:
            yield
        except (errors.ReportedError, OSError, *of_the_input) as error:
            print_error(error)
            sys.exit(_status(error, wrong_input))
        except Exception as error:
            if not is_outside(error):
                raise
            print_error(" ".join(str(error).split()))
            sys.exit(FAILED)


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """While this lasts, all that is printed or logged passes through `printable.in_lines`.

    Names of files on the command line, in which newlines are as unwanted, are kept in one line. It
    stays so after an error that nobody foresaw, for the traceback that Python then prints.
    """
    streams, handler = (sys.stdout, sys.stderr), logging.get_absl_handler().python_handler
    names = _names_in_lines(sys.argv)
    sys.stdout, sys.stderr = (printable.PrintableStream(stream, names) for stream in streams)
    logged = handler.setStream(sys.stderr)
    is_foreseen = True
    try:
        yield
    except Exception:
        is_foreseen = False
        raise
    finally:
        if is_foreseen:
            sys.stdout, sys.stderr = streams
            handler.setStream(logged or streams[1])


def _names_in_lines(arguments: Sequence[str]) -> list[str]:
    """The parts of paths that have newlines or tabs in them."""
    parts = [part for each in arguments for part in re.split("[/=]", each)]
    return [part for part in parts if printable.in_one_line(part) != printable.in_lines(part)]


def print_error(error: Exception | str) -> None:
    """Prints an error in words."""
    print(f"error: {printable.in_lines(str(error))}", file=sys.stderr, flush=True)


def _status(error: Exception, wrong_input: int) -> int:
    if is_outside(error):
        return FAILED
    is_of_the_input = isinstance(error, errors.InputError)
    if isinstance(error, errors.ReportedError) and not is_of_the_input:
        return error.exit_status
    return wrong_input


def is_outside(error: Exception) -> bool:
    """Whether no other input would help: a full or broken disk, a server that fails."""
    return isinstance(error, errors.OutsideError) or files.is_of_the_disk(error)
