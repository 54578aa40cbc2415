import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import Refused
from models.identifiers import normalise_email


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("ada@example.com", "ada@example.com"),
        ("Ada.Lovelace@EXAMPLE.Com", "ada.lovelace@example.com"),
        ("  ada@example.com\r\n", "ada@example.com"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        ("ada@XN--BCHER-KVA.example", "ada@xn--bcher-kva.example"),
        ("ada@straße.example", "ada@xn--strae-oqa.example"),
        ("ÉVA@example.com", "éva@example.com"),
        ("ada+keys@example.com", "ada+keys@example.com"),
        ("o'neil_x@my_host", "o'neil_x@my_host"),
    ],
)
def test_spellings_of_one_mailbox_become_one(written: str, normal: str) -> None:
    assert normalise_email(written) == normal


@pytest.mark.parametrize(
    "other",
    [
        "аda@example.com",  # a Cyrillic a
        "ada@exаmple.com",  # the same in the domain
        "a.d.a@example.com",
        "ada+1@example.com",
        "ada@example.com.example",
    ],
)
def test_look_alikes_stay_different(other: str) -> None:
    assert normalise_email(other) != "ada@example.com"


def test_lower_case_never_turns_a_foreign_sign_into_an_ascii_letter() -> None:
    assert normalise_email("\N{KELVIN SIGN}ate@example.com") != "kate@example.com"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@example.com, bob@example.com",
        "ada@example.com;bob@example.com",
        "ada@example.com bob@example.com",
        "ada@bob@example.com",
        "Ada <ada@example.com>",
        '"ada lovelace"@example.com',
        "ada@example.com\r\nBcc: bob@example.com",
        "ada\r\n@example.com",
        "ada\0@example.com",
        "ada\u200f@example.com",
        "ada@example.com\0",
        "ada@exam ple.com",
        "ada@example..com",
        "ada@example.com.",
        "ada@[192.0.2.1]",
        "ada@\ud800.example",
        "\ud800@example.com",
        "a" * 65 + "@example.com",
        "ada@" + "a" * 64 + ".com",
        "ada@" + "a.b." * 80 + "com",
        "ada@" + "ü" * 100_000,
    ],
)
def test_anything_but_one_plain_address_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refusal:
        normalise_email(text)
    assert refusal.value.code == "email_invalid"
    assert "give one plain address" in str(refusal.value)


def test_a_refusal_does_not_repeat_the_address() -> None:
    with pytest.raises(Refused) as refusal:
        normalise_email("canary, bob@example.com")
    assert "canary" not in str(refusal.value)


@given(st.text(max_size=12), st.sampled_from(["example.com", "Bücher.example", "ß.de", "İ.com"]))
def test_a_normal_spelling_is_stable_printable_and_short(local: str, domain: str) -> None:
    try:
        normal = normalise_email(f"{local}@{domain}")
    except Refused:
        return
    assert normalise_email(normal) == normal
    assert len(normal) <= 254
    assert not any(unicodedata.category(sign)[0] in "CZ" for sign in normal)
