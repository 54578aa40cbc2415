"""`[sources.NAME.proof]`: what is refused and how, and that docs/sources.md is true."""

import base64
import re
from typing import Any, get_args

import pytest
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from models.errors import Misconfigured
from tests.compose_file import ROOT
from tests.worker.intake.proofs import Site, hexed, why
from worker.intake import accept, verification
from worker.intake import main as intake
from worker.intake.verification import TRANSPORT
from worker.setting_proofs import PRESETS, PROOFS, SCHEMES
from worker.settings import Settings, load_settings

DOCUMENT = (ROOT / "docs" / "sources.md").read_text("utf-8")
BLOCKS = re.findall(r"(?ms)^```toml\n(.*?)^```", DOCUMENT)
JWS = 'scheme = "jws"\nkeys = "https://x.org/"\nissuer = "i"\naudience = ["a"]\n'
HMAC = 'scheme = "hmac"\nheader = "X-Sig"\n'


@pytest.mark.parametrize("text", BLOCKS, ids=range(len(BLOCKS)))
def test_each_block_of_the_documentation_is_ready_to_be_copied(idp: Site, text: str) -> None:
    settings = loaded(idp, text)
    [name] = settings.sources
    path = idp.secrets / f"source-{name}-1"
    path.touch(0o600)
    path.write_text("whsec_" + base64.b64encode(b"0123456789abcdef-first").decode())
    source = accept.source(settings, name)
    assert (source.verifier is TRANSPORT) == (".proof]" not in text)


def loaded(idp: Site, text: str) -> Settings:
    (idp.place / "keyturn.toml").write_text(text)
    return load_settings()


def test_every_preset_is_shown() -> None:
    shown = set(re.findall(r'(?m)^scheme = "(.*?)"', "\n".join(BLOCKS)))
    assert set(PRESETS) - shown == {"svix"}


@pytest.mark.parametrize(
    ("proof", "fault"),
    [
        ('scheme = "jwt"', "proof: input should be 'transport', or a table [sources.NAME.proof]"),
        ("scheme = []", "proof: input should be 'transport', or a table"),
        ('header = "X"', "proof: input should be 'transport', or a table"),
        ('scheme = "header"', "proof header: is missing; add it"),
        ('scheme = "header"\nheader = "X Y"', "proof header: not the name of a header"),
        ('scheme = "github"\nsecret = "hush-hush"', "proof: no secret stands in this file"),
        ('scheme = "github"\ntoken = "hush-hush"', "proof: no secret stands in this file"),
        ('scheme = "github"\nhaeder = "X"', "proof haeder: there is no such setting; did you mean"),
        ('scheme = "github"\nkeys = "k"', "proof keys: there is no such setting"),
        ('scheme = "github"\nmax_age = "1m"', "proof: max_age: this signature has no time"),
        ('scheme = "zitadel"\nmax_age = "soon"', "proof max_age: not a duration"),
        (HMAC + 'signed = "{timestamp}.{body}"', "a time that is not signed proves nothing"),
        (HMAC + 'timestamp_header = "X-Time"', "a time that is not signed proves nothing"),
        (HMAC + 'signed = "body"', "signed: name {body} once"),
        (HMAC + 'signed = "{body}{body}"', "signed: name {body} once"),
        (HMAC + 'signed = "{body}{id}"', "signed: name {body} once"),
        (HMAC + 'key = "{timestamp}"', "key: name {secret} once"),
        (HMAC + 'digest = "sha1"', "proof digest: input should be 'sha256'"),
        ('scheme = "zitadel"\ntimestamp_header = "X"', "the time stands in one place"),
        (JWS.replace("https:", "http:"), "proof keys: not a place of public keys"),
        (JWS.replace("https://x", "https://u:p@x"), "proof keys: not a place of public keys"),
        (JWS.replace("https://x.org/", "https://"), "proof keys: not a place of public keys"),
        (JWS.replace("https:", "file:"), "proof keys: not a place of public keys"),
        (JWS.replace("https://x.org/", "https://x:99999/"), "not a place of public keys"),
        (JWS.replace('["a"]', "[]"), "proof audience: "),
        (JWS + 'algorithms = ["HS256"]', "proof algorithms 0: input should be 'RS256'"),
        (JWS + 'algorithms = ["none"]', "proof algorithms 0: input should be 'RS256'"),
        (JWS + "algorithms = []", "proof algorithms: "),
        ('scheme = "fusionauth"\nkeys = "k"\nsecret_files = ["s"]', "keep one of both"),
    ],
)
def test_refuses_and_says_how_to_mend(idp: Site, proof: str, fault: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        idp.settings(proof)
    assert f"[sources.idp] {fault}" in str(refusal.value) or fault in str(refusal.value)
    assert "hush" not in str(refusal.value)


def test_a_preset_may_be_stated_otherwise(idp: Site) -> None:
    idp.secret(1, "0123456789abcdef")
    verify = idp.verifier('scheme = "github"\nheader = "X-Gitea-Signature"\nprefix = ""')
    assert why(verify, {"x-gitea-signature": hexed("0123456789abcdef", b"{}")}, b"{}") is None


def test_a_message_at_hand_is_verified_by_a_sources_settings(idp: Site) -> None:
    idp.secret(1, "0123456789abcdef")
    settings = idp.settings('scheme = "gitlab"')
    verification.verify(settings, "idp", {"x-gitlab-token": "0123456789abcdef"}, b"{}")
    with pytest.raises(verification.Unverified):
        verification.verify(settings, "idp", {"x-gitlab-token": "another, also long"}, b"{}")


def test_all_sources_that_cannot_be_used_are_told_at_once(idp: Site) -> None:
    """Else a person mends one, starts intake, and learns of the next."""
    text = 'broker_url = "redis://127.0.0.1:6379/0"\n' + "".join(
        f'[sources.{name}]\nprovider = "github"\nstream = "in:{name}"\n'
        f'[sources.{name}.proof]\nscheme = "github"\n'
        for name in ("first", "idp", "last")
    )
    settings = loaded(idp, text)
    idp.secret(1, "0123456789abcdef")
    with pytest.raises(Misconfigured) as refusal:
        intake.usable_sources(settings)
    told = str(refusal.value).splitlines()
    assert [line.partition(" has no secret")[0] for line in told] == ["source first", "source last"]
    for name in ("first", "last"):
        path = idp.secrets / f"source-{name}-1"
        path.touch(0o600)
        path.write_text("0123456789abcdef")
    assert set(intake.usable_sources(settings)) == {"first", "idp", "last"}


# --- the tables of the documentation


@pytest.mark.parametrize("model", PROOFS, ids=SCHEMES)
def test_every_scheme_is_documented(model: Any) -> None:
    [scheme] = get_args(model.model_fields["scheme"].annotation)
    _, _, chapter = DOCUMENT.partition(f"\n### `{scheme}`\n")
    shown = re.findall(r"(?m)^\| `(\w+)` \| (.*?) \| (.*) \|$", chapter.partition("\n### ")[0])
    due = [
        (name, _default(field), field.description)
        for name, field in model.model_fields.items()
        if name != "scheme"
    ]
    assert sorted(shown) == sorted(due)


def _default(field: FieldInfo) -> str:
    match field.default:
        case None:
            return "unset"
        case "" | ():
            return "empty"
        case tuple():
            return ", ".join(field.default)
        case _ if field.default is PydanticUndefined:
            return "needed"
        case _:
            return f"`{field.default}`"
