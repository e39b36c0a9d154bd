"""Counts checks: one line each, `ok - name` or `not ok - name: why`, as tests/clients/run reads them."""

import sys
import traceback

_failures = 0


def check(test):
    """Runs a test named after what it shows; decorator."""
    global _failures
    name = test.__name__.replace("_", " ")
    try:
        test()
    except Exception as error:  # Any exception is a failed check.
        _failures += 1
        where = traceback.extract_tb(error.__traceback__)[-1].lineno
        reason = f"line {where}: {type(error).__name__}: {error}".replace("\n", " ")
        print(f"not ok - {name}: {reason}", flush=True)
    else:
        print(f"ok - {name}", flush=True)
    return test


def equal(seen, expected):
    """Fails unless both are equal."""
    assert seen == expected, f"expected {expected!r}, got {seen!r}"


def refused(call, text):
    """Fails unless `call` raises a server's error that holds `text`."""
    from redis.exceptions import ResponseError

    try:
        seen = call()
    except ResponseError as error:
        assert text in str(error), f"expected an error with {text!r}, got {error}"
    else:
        raise AssertionError(f"expected an error with {text!r}, got {seen!r}")


def done():
    """Ends the program: 1 if a check failed."""
    sys.exit(1 if _failures else 0)
