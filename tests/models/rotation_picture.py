"""Draws the picture in docs/rotation.md from the table of transitions.

`python -m tests.models.rotation_picture` writes it into the document.
"""

from pathlib import Path
from typing import Final

from models.rotation_states import TRANSITIONS

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "rotation.md"
_BEGIN, _END = "```mermaid\n", "```\n"


def picture() -> str:
    """The transitions as a Mermaid state diagram."""
    after = {edge.after for edge in TRANSITIONS}
    ends = sorted(after - {edge.before for edge in TRANSITIONS})
    lines = [
        "stateDiagram-v2",
        *(
            f"    {edge.before or '[*]'} --> {edge.after}: {',<br/>'.join(edge.causes)}"
            for edge in TRANSITIONS
        ),
        *(f"    {end} --> [*]" for end in ends),
    ]
    return "\n".join(lines) + "\n"


def drawn(document: str) -> str:
    """The document with the picture as the code has it; it holds one Mermaid block."""
    before, _, rest = document.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{picture()}{_END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(drawn(DOCUMENT.read_text("utf-8")), "utf-8")
