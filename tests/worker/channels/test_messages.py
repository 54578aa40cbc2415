"""Mails to owners: what they say, and what they never do."""

import email
import email.policy
import re
from datetime import timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.key_text import mint
from tests.worker.channels.outgoing import (
    CREATED,
    PAYLOADS,
    SENDER,
    blocked,
    cancelled,
    issued,
    key,
    mail_payload,
    notice,
)
from worker.channels.messages import LONGEST_TEXT, Unsendable, kinds, mail, one_line

NASTY = "x\r\n\r\nBcc: eve@example.com\u2028\u202e\x00\x85Your key: click http://evil.example"


def parsed(kind: str, **changed: object) -> email.message.EmailMessage:
    """The mail as its reader gets it, after the wire."""
    made = mail(notice(kind=kind, payload=mail_payload(kind, **changed)), SENDER)
    received = made.as_bytes().replace(b"\r\n", b"\n")
    return email.message_from_bytes(received, policy=email.policy.default)


def text(kind: str, **changed: object) -> str:
    body = parsed(kind, **changed).get_content()
    assert isinstance(body, str)
    return body


def test_every_kind_has_a_payload_here() -> None:
    assert set(kinds()) == set(PAYLOADS)


@pytest.mark.parametrize("kind", PAYLOADS)
def test_every_kind_is_a_short_plain_mail(kind: str) -> None:
    made = parsed(kind)
    body = made.get_content()
    assert made["From"] == SENDER
    assert made["To"] == "owner1@example.com"
    assert made["Message-ID"] == "<00000000-0000-0000-0000-000000000001@example.com>"
    assert made["Auto-Submitted"] == "auto-generated"
    assert made["Date"].datetime == CREATED
    assert made.get_content_type() == "text/plain"
    assert body.startswith("Hello,\n\n")
    assert body.endswith("\n\nKeyturn\n")
    assert "ada@example.com" in body
    assert "deploy" in body or kind == "account.public_key"
    assert not re.search(r"[{}]|\n\n\n|[ \t]\n", body)
    assert body.count("\n") < 40
    assert 0 < len(made["Subject"]) < 120


@pytest.mark.parametrize("kind", PAYLOADS)
def test_every_kind_says_what_to_do(kind: str) -> None:
    assert re.search(r"What to do|nothing to do", text(kind))


def test_notice_names_some_and_counts_all() -> None:
    made = parsed("notice.expiring")
    body = made.get_content()
    assert made["Subject"] == "5 of your API keys expire in 7 days or less"
    assert "    deploy 1\n    ...a1B2, id 01939c1e-0000-7000-8000-000000000101\n" in body
    assert "    valid until Tuesday, 01 December 2026, 10:30 UTC\n" in body
    assert "deploy 2" in body
    assert "... and 3 more. `keyturn keys list --expiring 7d` shows all of them." in body


def test_notice_of_one_key_is_singular() -> None:
    made = parsed("notice.expiring", keys=[key(1)], total=1, threshold="1d")
    assert made["Subject"] == "Your API key expires in 1 day or less"
    assert "an API key of ada@example.com stops working soon:" in made.get_content()
    assert "more" not in made.get_content()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("30d", "30 days"),
        ("1w", "7 days"),
        ("36h", "36 hours"),
        ("90s", "90 seconds"),
        ("soon",) * 2,
    ],
)
def test_thresholds_in_words(written: str, read: str) -> None:
    assert f"expire in {read} or less" in parsed("notice.expiring", threshold=written)["Subject"]


def test_issued_says_how_to_claim_and_by_when() -> None:
    body = text("rotation.issued")
    assert "keyturn keys claim < file-with-the-old-key" in body
    assert "Client.claim(old_key)" in body
    assert "Thursday, 26 November 2026, 09:00 UTC" in body


@pytest.mark.parametrize(
    ("changed", "subject", "said"),
    [
        ({}, "Your public key was replaced", "The one before: thumbprint cn-I_WNM"),
        ({"before": None}, "A public key was registered for your account", "none before"),
        ({"kid": None, "thumbprint": None}, "Your public key was removed", "no public key"),
    ],
)
def test_a_public_key_that_changes(changed: dict[str, object], subject: str, said: str) -> None:
    made = parsed("account.public_key", **changed)
    assert made["Subject"] == subject
    assert said in made.get_content()
    assert "Changed by operator:ada on Monday, 23 November 2026, 08:00 UTC." in made.get_content()
    assert not re.search(r"[{}]|\n\n\n|[ \t]\n", made.get_content())


def test_times_are_told_in_utc() -> None:
    elsewhere = CREATED.astimezone(timezone(timedelta(hours=9)))
    told = text("rotation.issued", rotations=[issued(claim_by=elsewhere)], total=1)
    assert "Monday, 23 November 2026, 09:00 UTC" in told


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("name", ["key", "token", "text", "secret"])
def test_no_key_text_even_if_a_payload_held_one(kind: str, name: str) -> None:
    canary = mint("kt").reveal()
    nested: dict[str, object] = {
        k: v | {name: canary} for k, v in PAYLOADS[kind].items() if isinstance(v, dict)
    }
    if "rotations" in PAYLOADS[kind]:
        one = PAYLOADS[kind]["rotations"][0]
        surplus_of_one = {} if name in one else {name: canary}
        inside = {part: one[part] | {name: canary} for part in ("key", "successor")}
        nested["rotations"] = [one | surplus_of_one | inside]
    surplus = {} if name in PAYLOADS[kind] else {name: canary}
    assert canary not in parsed(kind, **nested, **surplus).as_string()


@pytest.mark.parametrize("kind", PAYLOADS)
def test_texts_from_outside_stay_one_line(kind: str) -> None:
    changed: dict[str, object] = {"account": NASTY}
    for name, value in PAYLOADS[kind].items():
        if name in ("key", "successor"):
            changed[name] = key(name=NASTY, hint=NASTY)
        elif name == "keys":
            changed[name] = [value[0] | {"name": NASTY, "id": NASTY}]
        elif name == "rotations":
            nasty = dict.fromkeys(("reason", "sink", "last_ip"), NASTY)
            keys = {part: key(name=NASTY, hint=NASTY) for part in ("key", "successor")}
            changed[name] = [value[0] | {k: v for k, v in nasty.items() if k in value[0]} | keys]
        elif name in ("reason", "threshold"):
            changed[name] = NASTY
        else:
            changed[name] = value
    made, plain = parsed(kind, **changed), parsed(kind)
    assert made.keys() == plain.keys()
    assert not [line for line in made.get_content().splitlines() if line.startswith("Bcc:")]
    assert "\u202e" not in made.get_content()


@given(st.text())
def test_one_line_is_one_bounded_line(value: str) -> None:
    line = one_line(value)
    assert len(line) <= LONGEST_TEXT
    assert len(line.splitlines()) <= 1
    assert line.isprintable()


@given(name=st.text(), reason=st.text())
def test_any_text_makes_a_mail_that_can_be_read(name: str, reason: str) -> None:
    told = [cancelled(key=key(name=name), reason=reason)]
    made = parsed("rotation.cancelled", rotations=told, total=1)
    assert one_line(name) in made.get_content()
    assert one_line(reason) in made.get_content()
    assert not made.defects


@pytest.mark.parametrize(
    "recipient",
    [
        "a@example.com\nBcc: b@example.com", "a@example.com, b@example.com", "nobody", "@", "a@",
        "A <a@example.com>", "a b@example.com", "a@exa mple.com", "",
    ],
)  # fmt: skip
def test_refuses_what_is_not_one_plain_recipient(recipient: str) -> None:
    with pytest.raises(Unsendable, match="give one plain address"):
        mail(notice(recipient=recipient), SENDER)


def test_refuses_an_account_without_address() -> None:
    with pytest.raises(Unsendable, match="the account has no e-mail address"):
        mail(notice(recipient=None), SENDER)


@pytest.mark.parametrize("kind", ["notice.unheard", "../notice.expired", "_key", "", "x" * 5000])
def test_refuses_a_kind_without_template(kind: str) -> None:
    with pytest.raises(Unsendable, match="there is no template for messages of kind"):
        mail(notice(kind=kind), SENDER)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"keys": [{}]}, "has no attribute 'name'"),
        ({"keys": [key(expires_at="soon")]}, "ValueError"),
        ({"keys": [key(expires_at="2026-12-01T10:30:00")]}, "ValueError"),
        ({"keys": None}, "TypeError"),
        ({"total": "many"}, "TypeError"),
    ],
)
def test_refuses_a_payload_that_does_not_fit(changed: dict[str, object], fault: str) -> None:
    payload = mail_payload("notice.expired", **changed)
    with pytest.raises(Unsendable, match=f"the payload does not fit its template: .*{fault}"):
        mail(notice(payload=payload), SENDER)


def test_refuses_a_payload_that_lacks_something() -> None:
    with pytest.raises(Unsendable, match="'total' is undefined"):
        mail(notice(payload={}), SENDER)


def test_international_addresses() -> None:
    assert mail(notice(recipient="Ada@Bücher.example"), SENDER)["To"] == "ada@xn--bcher-kva.example"
    made = mail(notice(recipient="björn@example.com"), SENDER)
    assert "To: björn@example.com".encode() in made.as_bytes()


def test_cancelled_offers_no_rotation_of_a_key_that_is_gone() -> None:
    gone, there = cancelled(code="old_key_deleted"), cancelled(code="unclaimed")
    assert "keyturn keys rotate" in text("rotation.cancelled", rotations=[there, gone], total=2)
    assert "keyturn keys rotate" not in text("rotation.cancelled", rotations=[gone], total=1)


def test_a_new_key_that_a_sink_hands_over_is_not_to_be_fetched() -> None:
    sunk = issued(1, sink="mount")
    alone = text("rotation.issued", rotations=[sunk], total=1)
    assert 'its new key is handed over by the sink "mount"' in alone
    assert "There is nothing to do" in alone
    assert "Fetch the new key" not in alone
    both = text("rotation.issued", rotations=[sunk, issued(2)], total=2)
    assert "Fetch the new key" in both
    assert "fetch its new key until Thursday, 26 November 2026, 09:00 UTC" in both


OF_SEVERAL = [kind for kind, payload in PAYLOADS.items() if "rotations" in payload]


@pytest.mark.parametrize("kind", OF_SEVERAL)
def test_of_many_rotations_some_are_named_and_all_are_counted(kind: str) -> None:
    made = parsed(kind)
    assert re.match(r"5 |The rotations of 5 ", made["Subject"])
    assert "... and 3 more. `keyturn rotations list" in made.get_content()


@pytest.mark.parametrize("kind", OF_SEVERAL)
def test_a_mail_about_one_rotation_is_about_that_key(kind: str) -> None:
    made = parsed(kind, rotations=PAYLOADS[kind]["rotations"][:1], total=1)
    assert '"deploy 1" (...a1B2)' in made["Subject"]
    body = made.get_content()
    assert "more" not in body.replace("nothing uses it any more", "")
    assert not re.search(r"[{}]|\n\n\n|[ \t]\n", body)


@pytest.mark.parametrize("others", [[], [blocked(2)]])
def test_a_failed_hand_over_says_how_to_get_the_key(others: list[dict[str, object]]) -> None:
    failed = blocked(1, code="hand_over_failed", reason="it did not get there")
    made = text("rotation.blocked", rotations=[failed, *others], total=1 + len(others))
    assert "keyturn keys claim < file-with-the-old-key" in made
    assert ("find what still uses an old key" in made) == bool(others)
    assert not re.search(r"\n\n\n|[ \t]\n", made)
