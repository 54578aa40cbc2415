"""The text of a key: made, recognised, hidden, stored (rule 1.1)."""

import copy
import dataclasses
import hashlib
import hmac
import json
import pickle
import re
import string
import traceback
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.errors import Misconfigured
from models.key_text import (
    ALPHABET,
    CHECKSUM_LENGTH,
    ENTROPY_LENGTH,
    Peppers,
    Secret,
    check_prefix,
    digest,
    digest_of_hash,
    digests,
    hint,
    mint,
    parse,
)

PREFIXES = st.from_regex(r"[a-z][a-z0-9_]{0,23}", fullmatch=True)
CHARACTERS = st.one_of(st.sampled_from(ALPHABET + "_-. "), st.characters())
CANARY = "kt_canaryCANARYcanaryCANARYcanary"
PEPPER = bytes(range(32))


def base62(number: int, width: int) -> str:
    """Written out plainly, to compare the quick way of the module with."""
    digits = ""
    for _ in range(width):
        number, last = divmod(number, 62)
        digits = (string.digits + string.ascii_uppercase + string.ascii_lowercase)[last] + digits
    assert number == 0
    return digits


def with_checksum(body: str) -> str:
    return body + base62(zlib.crc32(body.encode()), 6)


# --- mint and parse


@given(PREFIXES)
def test_a_minted_key_is_recognised(prefix: str) -> None:
    minted = mint(prefix)
    parsed = parse(minted.reveal())
    assert parsed is not None
    assert parsed.prefix == prefix
    assert parsed.secret == minted


@given(PREFIXES)
def test_a_minted_key_has_the_form_of_rule_1_1(prefix: str) -> None:
    body, checksum = (text := mint(prefix).reveal())[:-6], text[-6:]
    assert re.fullmatch(rf"{prefix}_[0-9A-Za-z]{{27}}", body)
    assert checksum == base62(zlib.crc32(body.encode()), 6)


def test_a_key_holds_160_bits() -> None:
    assert 62**ENTROPY_LENGTH >= 2**160
    assert len(set(ALPHABET)) == len(ALPHABET) == 62


def test_minted_keys_differ_and_use_every_character_at_every_place() -> None:
    texts = [mint("kt").reveal() for _ in range(2_000)]
    assert len(set(texts)) == len(texts)
    # 2,000 draws of 62 miss one character at one given place with a chance of 1e-14.
    for place in range(len("kt_"), len("kt_") + ENTROPY_LENGTH):
        assert {text[place] for text in texts} == set(ALPHABET)


@pytest.mark.parametrize("prefix", ["a", "kt", "kt_live", "k__"])
@pytest.mark.parametrize("entropy", ["0" * 27, "z" * 27, "0123456789ABCDEFGHIJKLMNOPQ"])
def test_keys_made_elsewhere_by_the_same_rule_are_recognised(prefix: str, entropy: str) -> None:
    parsed = parse(with_checksum(f"{prefix}_{entropy}"))
    assert parsed is not None
    assert parsed.prefix == prefix


def test_the_format_does_not_change() -> None:
    # Computed apart from the module: keys that are out must stay readable.
    assert parse("kt_0123456789ABCDEFGHIJKLMNOPQ4II3wF") is not None


@given(st.integers(min_value=0, max_value=2**32 - 1))
@example(0)
@example(2**32 - 1)
def test_every_checksum_has_six_characters_in_base62(crc: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.key_text.zlib.crc32", lambda _: crc)
        checksum = mint("kt").reveal()[-CHECKSUM_LENGTH:]
    assert checksum == base62(crc, 6)


@given(PREFIXES, st.data())
def test_every_change_of_one_character_is_caught(prefix: str, data: st.DataObject) -> None:
    text = mint(prefix).reveal()
    place = data.draw(st.integers(min_value=0, max_value=len(text) - 1))
    other = data.draw(CHARACTERS.filter(lambda character: character != text[place]))
    changed = text[:place] + other + text[place + 1 :]
    # White space at an end is forgiven, but then a character is missing.
    assert parse(changed) is None


def test_every_change_to_another_character_of_the_alphabet_is_caught() -> None:
    text = mint("kt").reveal()
    found = [
        changed
        for place in range(len(text))
        for other in ALPHABET + "_"
        if (changed := text[:place] + other + text[place + 1 :]) != text and parse(changed)
    ]
    assert found == []


@given(st.data())
def test_characters_swapped_lost_or_doubled_are_caught(data: st.DataObject) -> None:
    text = mint("kt").reveal()
    place = data.draw(st.integers(min_value=0, max_value=len(text) - 2))
    pair = text[place : place + 2]
    assert parse(text[:place] + text[place + 1 :]) is None
    assert parse(text[:place] + text[place] + text[place:]) is None
    if pair[0] != pair[1]:
        assert parse(text[:place] + pair[::-1] + text[place + 2 :]) is None


def test_the_case_of_letters_counts() -> None:
    text = with_checksum("kt_" + "a" * 27)
    assert parse(text) is not None
    assert parse("kt_" + text.removeprefix("kt_").swapcase()) is None
    assert parse(text.upper()) is None


@pytest.mark.parametrize("around", [" {}", "{}\n", "\t{}\r\n", "\n\n{}  "])
def test_white_space_around_is_forgiven(around: str) -> None:
    minted = mint("kt")
    parsed = parse(around.format(minted.reveal()))
    assert parsed is not None
    assert parsed.secret == minted


@pytest.mark.parametrize(
    "around", ["'{}'", '"{}"', "Bearer {}", "{},", "{}\0", "\ufeff{}", "{} {}", "{}\nx"]
)
def test_nothing_else_around_is_forgiven(around: str) -> None:
    text = mint("kt").reveal()
    assert parse(around.format(text, text)) is None


def test_white_space_without_measure_is_not_forgiven() -> None:
    text = mint("kt").reveal()
    assert parse(text + " " * (256 - len(text))) is not None
    assert parse(text + " " * (257 - len(text))) is None


def test_white_space_inside_is_not_forgiven() -> None:
    text = mint("kt").reveal()
    assert parse(f"{text[:10]} {text[10:]}") is None


def test_a_prefix_can_be_asked_for() -> None:
    text = mint("kt_live").reveal()
    assert parse(text, "kt_live") is not None
    assert parse(text, "kt") is None
    assert parse(text, "kt_test") is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        True,
        7,
        1.5,
        b"kt_x",
        [],
        object(),
        "",
        "_",
        "kt_",
        " " * 100,
        "x" * 10_000_000,
        "kt_" + "a" * 33,
        "\ud800" * 40,
        "kt_" + "é" * 33,
        "kt_" + "１" * 33,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_anything_else_is_no_key_and_no_error(text: object) -> None:
    assert parse(text) is None


def test_bytes_of_a_key_are_no_key() -> None:
    assert parse(mint("kt").reveal().encode()) is None


@given(st.text(max_size=80) | st.binary(max_size=80) | st.integers())
def test_noise_is_no_key_and_no_error(noise: object) -> None:
    assert parse(noise) is None


@pytest.mark.parametrize("prefix", ["K_aaa", "1kt", "", "k-t", "k" * 25, "kt "])
def test_a_right_checksum_does_not_make_up_for_a_wrong_prefix(prefix: str) -> None:
    assert parse(with_checksum(f"{prefix}_{'a' * 27}")) is None


@pytest.mark.parametrize("prefix", ["k", "kt", "kt_live", "k2_", "k" * 24])
def test_a_prefix_of_small_letters_digits_and_underscores_is_usable(prefix: str) -> None:
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize(
    "prefix", ["", "_kt", "2k", "Kt", "k-t", "k t", "kt\n", "ké", "k" * 25, None, 7, b"kt"]
)
def test_another_prefix_is_refused_with_the_form_to_use(prefix: str) -> None:
    with pytest.raises(Misconfigured, match=r"small letter.*at most 24"):
        mint(prefix)


# --- Secret


def test_a_secret_shows_its_hint_only() -> None:
    secret = Secret(CANARY)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r}",
        f"{secret:>40}",
        "%s %r" % (secret, secret),  # noqa: UP031 - this way of formatting is the one tested
        "{}".format(secret),  # noqa: UP032 - as above
        repr([secret]),
        json.dumps({"key": secret}, default=str),
        repr(parse(mint("kt").reveal())),
    ]
    assert [text for text in shown if "<secret ..." not in text or "CANARY" in text] == []
    assert repr(secret) == "<secret ...nary>"


def test_a_short_secret_shows_nothing() -> None:
    assert repr(Secret("hunter2")) == str(Secret("")) == "<secret>"


def test_a_secret_gives_its_text_when_asked() -> None:
    assert Secret(CANARY).reveal() == CANARY


def test_a_secret_stands_in_no_traceback_and_no_attributes() -> None:
    secret = Secret(CANARY)
    with pytest.raises(AttributeError) as raised:
        secret.text  # type: ignore[attr-defined]  # noqa: B018
    lines = traceback.TracebackException.from_exception(raised.value, capture_locals=True).format()
    assert "<secret ...nary>" in (shown := "".join(lines))
    assert "CANARY" not in shown
    assert not hasattr(secret, "__dict__")
    with pytest.raises(TypeError):
        vars(secret)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "holder",
    [Secret(CANARY), [Secret(CANARY)], Peppers({1: PEPPER}), parse(with_checksum("k_" + "a" * 27))],
    ids=["secret", "list", "peppers", "parsed"],
)
def test_secrets_are_not_pickled(holder: object, protocol: int) -> None:
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(holder, protocol)


def test_secrets_are_not_copied_or_taken_apart() -> None:
    secret = Secret(CANARY)
    for copying in (copy.copy, copy.deepcopy, Secret.__getstate__):
        with pytest.raises(TypeError, match="pass it on as it is"):
            copying(secret)
    parsed = parse(mint("kt").reveal())
    assert parsed is not None
    with pytest.raises(TypeError):
        dataclasses.asdict(parsed)
    with pytest.raises(TypeError):
        json.dumps(secret)


def test_secrets_compare_by_text_and_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[object] = []
    real = hmac.compare_digest

    def counted(first: bytes, second: bytes) -> bool:
        compared.append(first)
        return real(first, second)

    monkeypatch.setattr("models.key_text.hmac.compare_digest", counted)
    assert Secret("é\ud800") == Secret("é\ud800")
    assert Secret("a") != Secret("b")
    assert len(compared) == 2


def test_a_secret_equals_no_text_and_has_no_hash() -> None:
    assert Secret("a") != "a"
    with pytest.raises(TypeError):
        hash(Secret("a"))


def test_the_hint_is_the_last_four_characters() -> None:
    assert hint("kt_abcdefgh") == "efgh"
    assert hint("ab") == "ab"
    assert hint("") == ""


# --- digests


def test_a_digest_is_hmac_of_hash() -> None:
    inner = hashlib.sha256(b"kt_text").digest()
    expected = hmac.new(PEPPER, inner, hashlib.sha256).digest()
    assert digest("kt_text", PEPPER) == digest_of_hash(inner, PEPPER) == expected


def test_the_digest_of_a_known_key_does_not_change() -> None:
    expected = "04a34df987170473d965f77d736a60d911b0c01e12d22ea70c51a7ea5e3dc347"
    assert digest("kt_text", PEPPER).hex() == expected


@given(st.text(), st.text(), st.binary(min_size=32, max_size=80))
def test_other_texts_have_other_digests(text: str, other: str, pepper: bytes) -> None:
    assert (digest(text, pepper) == digest(other, pepper)) == (text == other)


def test_digests_come_under_all_peppers_the_current_one_first() -> None:
    peppers = Peppers({2: b"b" * 32, 10: b"c" * 40, 1: b"a" * 32})
    assert peppers.current == 10
    assert peppers.versions == (10, 2, 1)
    assert digests("text", peppers) == [
        digest("text", b"c" * 40),
        digest("text", b"b" * 32),
        digest("text", b"a" * 32),
    ]


def test_a_missing_pepper_is_named() -> None:
    with pytest.raises(Misconfigured, match=r"pepper 3 is missing.*bring its file back"):
        Peppers({1: PEPPER})[3]


@pytest.mark.parametrize(
    "by_version",
    [
        {},
        {1: b""},
        {1: b"x" * 31},
        {1: PEPPER, 2: b"short"},
        {1: "x" * 32},
        {0: PEPPER},
        {-1: PEPPER},
        {32_768: PEPPER},
        {True: PEPPER},
        {"1": PEPPER},
    ],
    ids=repr,
)
def test_peppers_that_protect_nothing_are_refused(by_version: dict[int, bytes]) -> None:
    with pytest.raises(Misconfigured, match=r"give at least one|use whole numbers|openssl rand"):
        Peppers(by_version)


def test_a_refused_pepper_is_not_shown() -> None:
    with pytest.raises(Misconfigured) as raised:
        Peppers({1: b"CANARY"})
    assert "CANARY" not in str(raised.value)
    assert "openssl rand -base64 32" in str(raised.value)


def test_peppers_do_not_show_themselves() -> None:
    peppers = Peppers({1: b"CANARY" * 8, 2: PEPPER})
    assert repr(peppers) == str(peppers) == "<Peppers 2, 1>"


def test_peppers_do_not_follow_changes_of_what_they_were_made_from() -> None:
    source = {1: PEPPER}
    peppers = Peppers(source)
    source[2] = b"x" * 32
    assert peppers.versions == (1,)
