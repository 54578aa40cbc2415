"""`keyturn accounts public-key`: whose keys can be read by whom is never changed by mistake."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.worker.cli.conftest import ADA, Cli

SHOW = ("accounts", "public-key", ADA)


def pem(key: X25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def test_registered_shown_replaced_and_removed(cli: Cli, tmp_path: Path) -> None:
    assert cli.json(*SHOW) == {"account": ADA, "public_key": None}
    file = tmp_path / "key.pem"
    file.write_text(pem(X25519PrivateKey.generate()))
    first = cli.json(*SHOW, str(file))["public_key"]
    assert (first["kty"], first["crv"]) == ("OKP", "X25519")
    assert cli.json(*SHOW)["public_key"] == first
    assert first["kid"] in cli.ok(*SHOW)
    assert cli.json(*SHOW, str(file))["public_key"] == first  # the same again asks nothing

    other = pem(X25519PrivateKey.generate())
    refused = cli(*SHOW, "-", stdin=other)
    assert refused.exit_code == 2  # nobody can be asked here
    assert cli.json(*SHOW)["public_key"] == first
    would = cli.json(*SHOW, "-", "--dry-run", stdin=other)["would"]
    assert would["before"] == first
    second = cli.json(*SHOW, "-", "--yes", stdin=other)["public_key"]
    assert second == would["after"] != first

    assert cli(*SHOW, "--remove").exit_code == 2
    assert cli.json(*SHOW, "--remove", "--yes")["public_key"] is None
    assert "no public key" in cli.ok(*SHOW)


def test_a_private_key_is_refused_and_not_kept(cli: Cli, database_url: str) -> None:
    key = X25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    told = cli(*SHOW, "-", stdin=private)
    assert told.exit_code == 3
    assert private.splitlines()[1] not in told.output
    assert cli.refusal(*SHOW, "-", stdin=private) == "public_key_private"
    assert cli.json(*SHOW)["public_key"] is None


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (["nowhere.pem"], "", "cannot read nowhere.pem: No such file"),
        (["-"], b"\xff\xfe", "is no text"),
        (["-", "--remove"], "", "not both"),
    ],
)
def test_what_cannot_be_read(cli: Cli, arguments: list[str], stdin: str | bytes, said: str) -> None:
    told = cli(*SHOW, *arguments, stdin=stdin)
    assert told.exit_code == 2
    assert said in told.stderr
