"""docs/sinks.md says what can be set."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from models.durations import format_duration
from worker.setting_sinks import KINDS

TEXT = (Path(__file__).parents[3] / "docs" / "sinks.md").read_text("utf-8")


def written(default: object) -> str:
    match default:
        case None:
            return "unset"
        case _ if default is PydanticUndefined:
            return "needed"
        case bool():
            return f"`{str(default).lower()}`"
        case timedelta():
            return f"`{format_duration(default)}`"
        case _:
            return f"`{default}`"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_documented(kind: str) -> None:
    [chapter] = [one for one in re.split(r"(?m)^## ", TEXT) if one.startswith(f"{kind}\n")]
    table = chapter.partition("| member |")[2].partition("\n\n")[0]
    rows = re.findall(r"(?m)^\| `(\w+)` \| (.*?) \| (.*) \|$", table)
    fields = KINDS[kind].model_fields
    assert rows == [(n, written(f.default), f.description or "") for n, f in fields.items()]
    assert f"| `{kind}` |" in TEXT.partition("\n## ")[0]
