"""Where new keys of a run go by themselves: a directory, a program with moods, and sealed."""

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROLES: Final = ("viewer", "mounted", "program", "sealed", "scheduled", "reissued", "wave")
"""Of keys; but for the first and last each names the rotation policy of its own name."""

_SETTINGS: Final = """
[roles.member]
permissions = ["read", "write"]

[rotation_policies.mounted]
sink = "mount"

[rotation_policies.program]
sink = "program"

[rotation_policies.sealed]
sink = "owner"

[rotation_policies.scheduled]
rotate = "2/3"

[rotation_policies.reissued]
on_compromise = "hold_and_issue"

[sinks.mount]
kind = "file"
directory = "{place}/mount"

[sinks.program]
kind = "exec"
command = ["{place}/program", "{place}"]
timeout = "2s"

[sinks.owner]
kind = "sealed"
send = "both"
"""

# It says all that it is told: none of that may get into a log.
_PROGRAM: Final = """#!/bin/sh
umask 077
text=$(cat)
echo "$text" >&2
echo "$text"
env
mood=$(cat "$1/moods/$KEYTURN_ACCOUNT")
: > "$1/moods/$KEYTURN_ACCOUNT"
case "$mood" in
    fails) exit 1 ;;
    hangs) sleep 60 ;;
esac
printf %s "$text" > "$1/taken/.$KEYTURN_ROTATION_ID.$$"
mv "$1/taken/.$KEYTURN_ROTATION_ID.$$" "$1/taken/$KEYTURN_ROTATION_ID"
"""

MOODS: Final = ("takes", "fails", "hangs")
"""What the program does at its first try for an account; later it takes what it is given."""


@dataclass(frozen=True)
class Sinks:
    """A directory of a run's own, with all that its sinks need."""

    place: Path

    def make(self) -> Path:
        """Write program and settings; returns the file of these."""
        for name in ("moods", "taken"):
            (self.place / name).mkdir(parents=True, mode=0o700)
        program = self.place / "program"
        program.write_text(_PROGRAM)
        program.chmod(0o700)
        policies = {name: f'rotation_policy = "{name}"\n' for name in ROLES[1:-1]}
        roles = (f'[roles.{n}]\npermissions = ["read"]\n{policies.get(n, "")}' for n in ROLES)
        file = self.place / "keyturn.toml"
        file.write_text("".join(roles) + _SETTINGS.format(place=self.place))
        return file

    def set_mood(self, account: str, mood: str) -> None:
        """How the program will take the next key of an account."""
        (self.place / "moods" / account).write_text(mood)

    def mounted(self, family: object) -> Path:
        """Where the new key of a family is put."""
        return self.place / "mount" / str(family)

    def taken(self, rotation: object) -> Path:
        """Where the program puts the new key of a rotation."""
        return self.place / "taken" / str(rotation)


@dataclass(frozen=True)
class Found:
    """A file as it is in the end."""

    mode: int
    text: str


def found(file: Path) -> Found | None:
    """None where there is no such file."""
    try:
        return Found(stat.S_IMODE(file.lstat().st_mode), file.read_text())
    except FileNotFoundError:
        return None
