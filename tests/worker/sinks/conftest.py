"""What tests of sinks share."""

import logging
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture
def clean_logging() -> Iterator[None]:
    """Logging is global: what a test sets up goes away with it."""
    root, names = logging.getLogger(), ("botocore", "boto3", "urllib3", "hvac")
    handlers, level = root.handlers[:], root.level
    levels = [logging.getLogger(name).level for name in names]
    hooks = sys.excepthook, threading.excepthook
    yield
    root.handlers, root.level = handlers, level
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    structlog.reset_defaults()
    for name, before in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(before)
