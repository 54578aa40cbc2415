"""What is refused as an argument: a key's text, which others would see and histories keep."""

import re

import typer

from models.key_text import parse

_LOOKS_SECRET = re.compile(r"_[0-9A-Za-z]{20,}")


def looks_secret(value: str) -> bool:
    """Whether a text may be a key's."""
    return parse(value) is not None or _LOOKS_SECRET.search(value) is not None


def no_secret(value: str) -> str:
    """The argument, unless it looks like a key's text."""
    if looks_secret(value):
        raise typer.BadParameter(
            "this looks like a key's text, which is a secret: arguments are seen by others and "
            "kept in histories. Give the key's id, or its text on stdin where the command reads it"
        )
    return value
