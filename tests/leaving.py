"""How a forked child of the tests ends: as a script would, and without taking the libraries apart."""

import os
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def leaving() -> Generator[None]:
    """Around all that a child does, which ends here: with the code of its SystemExit, 1 after another error, else 0."""
    code = 1
    try:
        yield
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # told by the exit code
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
