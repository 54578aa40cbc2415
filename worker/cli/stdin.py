"""What commands read from stdin: keys' texts, which are never arguments."""

import getpass
import sys

import typer

LONGEST_TEXT = 4096  # characters; a key has at most 58


def text_from_stdin() -> str:
    """A key's text, typed unseen or piped."""
    if sys.stdin.isatty():
        text = getpass.getpass("Key's text (not shown): ")
    else:
        text = sys.stdin.buffer.read(LONGEST_TEXT).decode("utf-8", "replace")
    if not text.strip():
        raise typer.BadParameter("there is no key on stdin: give its text, like `... < file`")
    return text.strip()
