"""Mails to the owners of keys: each kind of message has one template, rendered from its payload.

What the payload of each kind must hold is written at the top of its template. Texts from outside,
such as the name of a key, enter as one bounded line without control characters: they can neither
make a header nor pretend to be a paragraph of ours.
"""

import unicodedata
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import parseaddr
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateNotFound

from models.durations import parse_duration
from models.errors import Refused
from models.identifiers import normalise_email
from models.messages import Outgoing

LONGEST_TEXT: Final = 200  # characters of one value; names of keys are for telling keys apart
_UNITS: Final = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


class Unsendable(Exception):
    """The message cannot be made, and another attempt would end the same. Says why."""


def mail(message: Outgoing, sender: str) -> EmailMessage:
    """The mail that `message` becomes: one recipient, the same Message-ID at every attempt.

    Raises Unsendable if its kind has no template, its payload lacks something that the template
    needs, or its recipient is not one plain address.
    """
    recipient = _recipient(message)
    subject, text = _rendered(message)
    # 7 bit, since not every server on the way takes more; UTF-8 in headers only where an address
    # cannot be written without it (RFC 6531).
    policy = (SMTP if recipient.isascii() else SMTPUTF8).clone(cte_type="7bit")
    made = EmailMessage(policy)
    made["From"] = sender
    made["To"] = recipient
    made["Subject"] = subject
    made["Date"] = message.created_at.astimezone(UTC)
    made["Message-ID"] = f"<{message.id}@{parseaddr(sender)[1].rpartition('@')[2]}>"
    made["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notices in answer
    made.set_content(text)
    return made


def one_line(value: object) -> str:
    """`value` as one line of at most LONGEST_TEXT characters, without invisible ones."""
    visible = (
        " " if unicodedata.category(character) in ("Cc", "Zl", "Zp") else character
        for character in str(value)
        if unicodedata.category(character) not in ("Cf", "Cs", "Co", "Cn")
    )  # fmt: skip
    line = " ".join("".join(visible).split())
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 1]}…"


def _when(moment: object) -> str:
    """A time, given as ISO 8601 text or datetime, as people read it, in UTC."""
    time = moment if isinstance(moment, datetime) else datetime.fromisoformat(str(moment))
    if time.tzinfo is None:
        raise ValueError("a time has no zone")
    return f"{time.astimezone(UTC):%A, %d %B %Y, %H:%M} UTC"


def _duration(text: object) -> str:
    """A duration such as `7d` in words; what is no duration stays as it is."""
    try:
        seconds = int(parse_duration(str(text)).total_seconds())
    except Refused:
        return str(text)
    unit, length = next(u for u in _UNITS if not seconds % u[1])
    number = seconds // length
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _environment() -> Environment:
    # Not escaped for HTML: mails are plain text.
    environment = Environment(  # nosec B701
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        finalize=one_line,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(when=_when, duration=_duration)
    return environment


_TEMPLATES: Final = _environment()


def kinds() -> list[str]:
    """The kinds of messages that can be mailed."""
    names = _TEMPLATES.list_templates(filter_func=lambda name: name.endswith(".txt.j2"))
    return sorted(name.removesuffix(".txt.j2") for name in names)


def _recipient(message: Outgoing) -> str:
    if message.recipient is None:
        raise Unsendable("nobody to send to: the account has no e-mail address")
    try:
        return normalise_email(message.recipient)
    except Refused as error:
        raise Unsendable(str(error)) from None


def _rendered(message: Outgoing) -> tuple[str, str]:
    try:
        template = _TEMPLATES.get_template(f"{message.kind}.txt.j2")
        text = template.render(message.payload)
    except TemplateNotFound:
        raise Unsendable(f"there is no template for messages of kind {message.kind!r}") from None
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        # The text of the error names what is missing; it quotes no value of the payload.
        why = str(error) if isinstance(error, TemplateError) else type(error).__name__
        raise Unsendable(f"the payload does not fit its template: {one_line(why)}") from None
    head, _, body = text.lstrip().partition("\n\n")
    return one_line(head.removeprefix("Subject:")), body.strip() + "\n"
