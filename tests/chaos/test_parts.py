"""The smaller parts: whose fault a duplicate is, where secrets are found, what a mailbox does."""

import base64
import smtplib
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

from models.key_text import mint
from tests.chaos import canaries, duplicates
from tests.chaos.canaries import Canaries
from tests.chaos.faults import Fault, kinds, schedule
from tests.chaos.ledger import Posted, Told
from tests.chaos.mailbox import Mailbox, Mood
from tests.chaos.run import alarms
from tests.chaos.scorecard import Scorecard
from tests.eventually import eventually
from worker.channels import SmtpServer


def told(at: float, name: str = "1", *, again: bool = False) -> Told:
    return Told(name, "key.disabled", ("k",), at, again)


def test_a_duplicate_is_the_fault_of_what_came_between() -> None:
    kill = Fault("SIGKILL", "worker", 11.0, 11.0)
    [found] = duplicates.of_events([told(10.0), told(14.0), told(10.0, "2")], [kill])
    assert found.cause == "SIGKILL worker"
    [late] = duplicates.of_events([told(13.0), told(14.0)], [kill])
    assert late.cause is None
    [early] = duplicates.of_events([told(5.0), told(6.0)], [kill])
    assert early.cause is None


def test_what_cannot_make_a_duplicate_explains_none() -> None:
    harmless = [Fault("FLUSHALL", "", 11.0, 11.0), Fault("SIGKILL", "beat", 11.0, 11.0)]
    mails = [Posted("<1@x>", "ada", "s", at) for at in (10.0, 14.0)]
    [found] = duplicates.of_mails(mails, harmless)
    assert found.cause is None
    card = Scorecard("valkey", 1, 1)
    card.add_duplicates([found])
    assert card.broken == ["mail <1@x> came twice, 4.0 s apart, and no fault explains it"]


def test_a_receivers_own_lost_connection_explains_a_redelivery() -> None:
    [found] = duplicates.of_events([told(1.0), told(2.0, again=True)], [])
    assert found.cause == "the receiver lost its connection"


def test_what_waited_for_its_receiver_was_sent_before() -> None:
    """Both were cut off: the sender had no answer, and the receiver came back after him."""
    crash = Fault("crash", "broker", 11.0, 13.0)
    waited = replace(told(20.0), since=10.5)
    [found] = duplicates.of_events([waited, told(20.3)], [crash])
    assert found.cause == "crash broker"
    [late] = duplicates.of_events([replace(waited, since=14.5), told(20.3)], [crash])
    assert late.cause is None


TEXT = mint("kt").reveal()
SECRET = bytes(range(225, 256))


@pytest.mark.parametrize("form", list(canaries.forms(SECRET)))
def test_a_secret_is_found_in_every_form(form: bytes) -> None:
    assert Canaries({"pepper-1": SECRET}, [TEXT]).found(b"x=" + form + b";") == ["pepper-1"]


@pytest.mark.parametrize(
    "content",
    [
        f'{{"key": "{TEXT}"}}',
        f"a_{TEXT}",
        f"not_{TEXT[3:]} {TEXT}",
        TEXT.encode().hex(),
        TEXT.encode().hex().upper(),
        f"a3Rfa3Rf {base64.b64encode(TEXT.encode()).decode()}",
    ],
    ids=["json", "glued", "twice", "hex", "HEX", "base64"],
)
def test_a_keys_text_is_found(content: str) -> None:
    assert Canaries({}, [TEXT]).found(content.encode()) == ["the text of a key"]


def test_what_is_no_secret_is_not_found() -> None:
    other = mint("kt").reveal()
    assert Canaries({"pepper-1": SECRET}, [TEXT]).found(f"{other} {TEXT[:-1]}".encode()) == []


def test_each_kind_of_fault_comes_in_its_turn_and_again_with_the_seed() -> None:
    every = len(kinds("valkey"))
    drawn = [(kind.kind, kind.target, t) for _, kind, t in islice(schedule("valkey", 7), 2 * every)]
    assert set(Counter((kind, target) for kind, target, _ in drawn).values()) == {2}
    again = [(kind.kind, kind.target, t) for _, kind, t in islice(schedule("valkey", 7), 2 * every)]
    assert again == drawn
    assert "FLUSHALL" not in {kind.kind for kind in kinds("rabbitmq")}


def send(mailbox: Mailbox, timeout: float = 5.0) -> str:
    """What a client is told of one mail."""
    server = SmtpServer.from_url(mailbox.url)
    try:
        with smtplib.SMTP(server.host, server.port, timeout=timeout) as client:
            client.login(server.user or "", server.password or "")
            client.sendmail(
                "k@x.example", ["ada@x.example"], "Message-ID: <1@x>\r\nSubject: s\r\n\r\n"
            )
    except (smtplib.SMTPException, OSError) as error:
        return type(error).__name__
    return "taken"


def test_a_mailbox_has_moods() -> None:
    with Mailbox().running("password") as mailbox:
        assert send(mailbox) == "taken"
        for mood, answer in (
            (Mood.LATER, "SMTPRecipientsRefused"),
            (Mood.NEVER, "SMTPDataError"),
            (Mood.HANGS_UP, "SMTPServerDisconnected"),
        ):
            mailbox.mood = mood
            assert send(mailbox) == answer
        mailbox.mood = Mood.HANGS
        assert send(mailbox, timeout=0.5) in ("TimeoutError", "SMTPServerDisconnected")
        assert len(mailbox.mails()) == 1
        assert mailbox.refused == {"ada@x.example"}
        mailbox.mood = Mood.LIES
        assert send(mailbox) == "SMTPServerDisconnected"
        eventually(lambda: len(mailbox.mails()) == 2)
        assert {mail.message_id for mail in mailbox.mails()} == {"<1@x>"}


def test_alarms_are_counted() -> None:
    lines = [
        b'{"alarm": "worker_stuck"}\nno json "alarm"\n{"event": "x"}\n{"alarm": "worker_stuck"}'
    ]
    assert alarms(iter(lines)) == {"worker_stuck": 2}
    broken = b'{"alarm": "invariant_broken", "invariant": "settled"}'
    assert alarms(iter([broken])) == {"invariant_broken settled": 1}
