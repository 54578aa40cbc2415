"""Names of files and secrets, made from a template and the facts of a hand-over."""

import re
import string
from typing import Final

from models.sinks import HandOver

FIELDS: Final = ("family_id", "key_id", "key_name", "account", "account_id")
"""What may stand in braces. Of these `family_id` alone is of one key and stays when it rotates."""

_VALUE: Final = re.compile(r"[A-Za-z0-9_@+=-][A-Za-z0-9._@+=-]{0,199}")
_LITERAL: Final = re.compile(r"[A-Za-z0-9._@+=/-]*")


class Unnameable(Exception):
    """A fact cannot be part of the name. Says which, and how to mend it."""


def checked(template: str, *, folders: bool) -> str:
    """The template, if it can name anything; raises ValueError.

    A part of the name is never empty, `.` or `..`; with `folders` parts may be joined by `/`.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        raise ValueError("a brace is not closed: write it like '{family_id}'") from None
    for literal, field, form, conversion in parts:
        if field is not None and (field not in FIELDS or form or conversion):
            names = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise ValueError(f"braces may hold these alone: {names}")
        if not _LITERAL.fullmatch(literal) or ("/" in literal and not folders):
            raise ValueError(
                "write letters, digits and . _ @ + = -" + (" and /" if folders else ", and no /")
            )
    example = template.format_map(dict.fromkeys(FIELDS, "x"))
    if not all(part.strip(".") for part in example.split("/")) or len(example) > 200:
        raise ValueError("a part of the name is empty or made of dots, or it is too long")
    if not folders and example.startswith("."):
        raise ValueError("a name that begins with a dot is hidden from who reads the directory")
    return template


def named(template: str, hand_over: HandOver) -> str:
    """The name that a template gives; raises Unnameable.

    No fact can lead out of where the template points: what is no plain word is refused.
    """
    values = {}
    for _, field, _, _ in string.Formatter().parse(template):
        if field is not None:
            values[field] = str(getattr(hand_over, field))
            if not _VALUE.fullmatch(values[field]):
                raise Unnameable(
                    f"the {field.replace('_', ' ')} cannot be part of a name, which has letters,"
                    " digits and . _ @ + = - alone: give the sink another `name`, such as"
                    " '{family_id}'"
                )
    return template.format_map(values)
