"""JMESPath expressions of mappings: checked when they are loaded, harmless when they are run.

Beside the functions of JMESPath there are four of our own, for what producers pack into texts:
`from_json(text)`, `from_base64(text)`, `segments(path)` (the parts between the slashes, decoded)
and `lower(text)`. Each gives null for anything it cannot read.
"""

import base64
import binascii
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any
from urllib.parse import unquote

import jmespath  # type: ignore[import-untyped]
from jmespath import exceptions, functions
from jmespath.lexer import Lexer  # type: ignore[import-untyped]
from pydantic import BeforeValidator

from . import reading
from .reading import Unreadable

MAX_LENGTH = 2000
"""Characters of an expression. The longest of the shipped ones has under 300."""


class _Functions(functions.Functions):  # type: ignore[misc]
    """JMESPath's own functions, and ours."""

    @functions.signature({"types": []})  # type: ignore[untyped-decorator]
    def _func_from_json(self, text: Any) -> Any:
        try:
            return reading.json_value(text.encode("utf-8", "replace"))
        except (AttributeError, Unreadable):
            return None

    @functions.signature({"types": []})  # type: ignore[untyped-decorator]
    def _func_from_base64(self, text: Any) -> Any:
        try:
            return base64.b64decode(text, validate=True).decode()
        except (TypeError, ValueError, binascii.Error):
            return None

    @functions.signature({"types": []})  # type: ignore[untyped-decorator]
    def _func_segments(self, path: Any) -> Any:
        if not isinstance(path, str):
            return None
        return [unquote(part) for part in path.partition("?")[0].split("/") if part]

    @functions.signature({"types": []})  # type: ignore[untyped-decorator]
    def _func_lower(self, text: Any) -> Any:
        return text.lower() if isinstance(text, str) else None


_COMPARATORS = ("eq", "ne", "lt", "lte", "gt", "gte")
_WORDS = ("true", "false")
"""`null` is left out: no member has that name, so comparing with it does what is meant."""

_OPTIONS = jmespath.Options(custom_functions=_Functions())


@dataclass(frozen=True)
class Compiled:
    """An expression that is known to be well-formed."""

    text: str
    _parsed: Any = field(repr=False, compare=False)

    def __call__(self, value: Any) -> Any:
        """What it finds; null where it finds nothing. Unreadable where the value does not suit."""
        try:
            return self._parsed.search(value, options=_OPTIONS)
        except (exceptions.JMESPathError, ArithmeticError, RecursionError, TypeError, ValueError):
            raise Unreadable(
                "wrong_type",
                f"the mapping's expression {self.text[:80]!a} does not suit this message",
            ) from None


def _compiled(value: object) -> Compiled:
    if isinstance(value, Compiled):
        return value
    if not isinstance(value, str) or not value.strip():
        raise ValueError("an expression is due here: write JMESPath, like user.id")
    if len(value) > MAX_LENGTH:
        raise ValueError(f"the expression is longer than {MAX_LENGTH} characters: shorten it")
    try:
        parsed = jmespath.compile(value)
    except exceptions.JMESPathError as error:
        raise ValueError(
            f"not JMESPath ({str(error).splitlines()[0]}): see jmespath.org, and put names with "
            'signs such as - into double quotes, like "user-id", texts into single ones, and '
            "numbers, true and false into backticks"
        ) from None
    except RecursionError:
        raise ValueError("the expression is nested too deeply: simplify it") from None
    _check_functions(parsed.parsed)
    _check_comparisons(value)
    return Compiled(value, parsed)


def _check_functions(node: Any) -> None:
    """The library would notice an unknown function only in a message that reaches it."""
    if node.get("type") == "function_expression":
        known = _OPTIONS.custom_functions.FUNCTION_TABLE.get(node["value"])
        if known is None:
            raise ValueError(f"there is no function {node['value']}() in JMESPath or in Keyturn")
        due, given = known["signature"], len(node["children"])
        open_ended = bool(due) and due[-1].get("variadic")
        if given < len(due) or (given > len(due) and not open_ended):
            raise ValueError(f"{node['value']}() takes {len(due)} arguments, not {given}")
    for child in node.get("children", ()):
        if isinstance(child, dict):
            _check_functions(child)


def _check_comparisons(expression: str) -> None:
    """What reads like a value may be the name of a member: never there, and so never equal."""
    tokens = list(Lexer().tokenize(expression))
    for sign, right in pairwise(tokens):
        if sign["type"] not in _COMPARATORS:
            continue
        name = right["value"]
        if right["type"] == "quoted_identifier":
            raise ValueError(
                f'"{name[:60]}" after {sign["value"]} is the name of a member: put a text into '
                f'single quotes, and a name that is meant into @."{name[:60]}"'
            )
        if right["type"] == "unquoted_identifier" and name.lower() in _WORDS:
            raise ValueError(
                f"{name} after {sign['value']} is the name of a member: put the value into "
                f"backticks, like `{name.lower()}`, and a text into single quotes"
            )


Expression = Annotated[Compiled, BeforeValidator(_compiled)]
"""A field that holds an expression; in TOML a string."""
