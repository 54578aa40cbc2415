"""New keys that go to sinks by themselves, in the installation whose secrets are all known."""

import json
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.eventually import eventually
from tests.flows.canary_site import Site

SOON: Final = 60.0

_SETTINGS: Final = """
[roles.viewer]
permissions = ["read"]
[roles.member]
permissions = ["read", "write"]
[roles.mounted]
permissions = ["read"]
rotation_policy = "mounted"
[roles.run]
permissions = ["read"]
rotation_policy = "run"
[roles.sealed]
permissions = ["read"]
rotation_policy = "sealed"
[rotation_policies.mounted]
sink = "mount"
[rotation_policies.run]
sink = "program"
[rotation_policies.sealed]
sink = "owner"
[sinks.mount]
kind = "file"
directory = "{place}/mount"
name = "{{key_name}}"
[sinks.program]
kind = "exec"
command = ["{place}/program", "{place}/taken"]
timeout = "1s"
[sinks.owner]
kind = "sealed"
send = "both"
"""

# It says all it is told, and fails at first: neither may get it into a log.
_PROGRAM: Final = """#!/bin/sh
text=$(cat)
echo "$text $text" >&2
echo "$text"
env
if [ ! -e "$1.failed" ]; then touch "$1.failed"; exit 1; fi
printf %s "$text" > "$1.draft"
mv "$1.draft" "$1"
"""


def settings(place: Path) -> Path:
    """A file of settings with three sinks, and what they need beside it."""
    program = place / "program"
    program.write_text(_PROGRAM)
    program.chmod(0o700)
    file = place / "keyturn.toml"
    file.write_text(_SETTINGS.format(place=place))
    return file


def hand_over(site: Site, account: str) -> None:
    """Rotate a key into each sink; what got there is looked for everywhere else from now on."""
    place = Path(site.release.environment["KEYTURN_CONFIG"]).parent
    key = X25519PrivateKey.generate().public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    site.command("accounts", "public-key", account, "-", stdin=pem)
    for role in ("mounted", "run", "sealed"):
        _rotated(site, account, role)
    mounted, taken = place / "mount" / "mounted", place / "taken"
    eventually(mounted.exists, within=SOON)
    eventually(taken.exists, within=SOON)
    site.canaries.add("key in a file", mounted.read_text())
    site.canaries.add("key of a program", taken.read_text().strip())
    assert site.operator.verify(taken.read_text().strip()).valid
    eventually(lambda: _handed_over(site) == 3, within=SOON)


def _rotated(site: Site, account: str, role: str) -> None:
    life = ("--validity", "90", "--time-unit", "day")
    made = site.command("keys", "create", role, "--user", account, "--role", role, *life, "--json")
    text = json.loads(made)["text"]
    site.canaries.add(f"old key of {role}", text)
    site.command("keys", "rotate", "-", stdin=text)


def _handed_over(site: Site) -> int:
    with site.operator.database.begin() as tx:
        return int(
            tx.scalar("SELECT count(*) FROM keyturn.rotations WHERE claimed_by LIKE 'sink:%'")
        )
