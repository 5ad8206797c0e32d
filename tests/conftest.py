"""Parts that several rooms' tests share."""

import signal

import pytest

from indexer.model import Model, load_model

# A shell that runs the tests in the background has Ctrl-C ignored, and every command that the tests start would inherit
# that; the tests of Ctrl-C need it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def model() -> Model:
    """The shipped compact model on the CPU."""
    return load_model("compact", "cpu")
