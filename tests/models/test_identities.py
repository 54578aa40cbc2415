"""Names of accounts: one spelling, and from when to when they name whom (rule 2.6)."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import permutations

import pytest

from models import accounts, identifiers, inbox, linking, outbox
from models.base import Database
from models.errors import Refused
from models.events import AccountEvent, Action, Certainty, Subject
from models.inbox import Received, Source
from tests.world import ADA, EPOCH, World, event

NEW, OTHER, BOB = "ada@new.example", "ada@other.example", "bob@example.com"
CHANGED, DISABLED, ENABLED = Action.IDENTITY_CHANGED, Action.DISABLED, Action.ENABLED
HOUR = timedelta(hours=1)


class Dated(World):
    """A world with a clock that the test sets."""

    now: datetime = EPOCH

    def __init__(self, url: str) -> None:
        super().__init__(Database(url, clock=lambda: self.now))
        self.alarms: list[dict[str, object]] = []
        self.database.on_alarm = self.alarms.append

    def say(self, *events: AccountEvent, source: str = "okta") -> list[str]:
        """Events come in and are applied; the states of all."""
        self.receive(*events, source=source)
        while self.apply():
            pass
        return self.states()

    def names(self, email: str = ADA) -> list[str]:
        with self.database.begin() as tx:
            return [one.value for one in accounts.identities(tx, accounts.find(tx, email).id)]

    def held(self, email: str = ADA) -> bool:
        with self.database.begin() as tx:
            return accounts.find(tx, email).held

    def audited(self) -> list[tuple[str, str, str | None]]:
        with self.database.begin() as tx:
            rows = tx.rows(
                "SELECT actor, action, why FROM keyturn.audit WHERE action LIKE 'account.%linked'"
                " ORDER BY id"
            )
        return [(row["actor"], row["action"], row["why"]) for row in rows]


@pytest.fixture
def world(database_url: str) -> Dated:
    made = Dated(database_url)
    made.account()
    made.account(BOB)
    made.now = EPOCH + 10 * HOUR
    return made


def at(hour: float) -> datetime:
    return EPOCH + hour * HOUR


def mail(value: str) -> Subject:
    return Subject(format="email", value=value)


def changed(old: str, new: str | None, hour: float, sequence: int | None = None) -> AccountEvent:
    return event(CHANGED, old, at=at(hour), sequence=sequence, new=mail(new) if new else None)


def said(action: Action, name: str, hour: float) -> AccountEvent:
    return event(action, name, at=at(hour))


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        (("email", "x", "Ada@B\u00fccher.example"), ("email", "", "ada@xn--bcher-kva.example")),
        (("phone_number", "", "0049 (151) 123-45678"), ("phone_number", "", "+4915112345678")),
        (("iss_sub", "https://id.example/", "A1"), ("iss_sub", "https://id.example", "A1")),
        (("uri", "", "HTTPS://Example.com/A"), ("uri", "", "https://example.com/A")),
        (("uri", "", "acct:Ada@Example.COM"), ("uri", "", "acct:Ada@example.com")),
        (("opaque", "okta", "00uA"), ("opaque", "okta", "00uA")),
    ],
)
def test_each_format_has_one_spelling(
    written: tuple[str, str, str], normal: tuple[str, str, str]
) -> None:
    assert identifiers.normalised(*written) == normal
    assert identifiers.normalised(*normal) == normal


@pytest.mark.parametrize("number", ["152", "+0123456789", "+49x151234567", "", "+" + "1" * 16])
def test_what_is_no_number_is_refused_and_not_repeated(number: str) -> None:
    with pytest.raises(Refused) as refused:
        identifiers.normalise_phone(number)
    assert refused.value.code == "phone_invalid"
    assert number == "" or number not in refused.value.message


@pytest.mark.parametrize(
    ("linked", "told"),
    [
        (
            Subject(format="phone_number", value="+49 151 12345678"),
            Subject(format="phone_number", value="004915112345678"),
        ),
        (
            Subject(format="iss_sub", issuer="https://id.example", value="7"),
            Subject(format="iss_sub", issuer="https://id.example/", value="7"),
        ),
        (
            Subject(format="external_id", issuer="okta", value="ada"),
            Subject(format="external_id", value="ada"),
        ),
        (mail("ADA@second.example"), mail("ada@Second.example")),
    ],
    ids=["phone", "issuer", "external_id", "email"],
)
def test_a_link_and_an_event_mean_the_same_in_any_spelling(
    world: Dated, linked: Subject, told: Subject
) -> None:
    with world.database.begin() as tx:
        ada = accounts.find(tx, ADA).id
    world.database.run(lambda tx: linking.link(tx, ada, linked, actor="test", policy=world.policy))
    assert world.say(event(DISABLED, subject=told)) == ["done"]
    assert world.held()


def test_an_external_id_belongs_to_its_source(database_url: str) -> None:
    world = Dated(database_url)
    world.account(ADA, Subject(format="external_id", issuer="okta", value="ada"))
    told = event(DISABLED, subject=Subject(format="external_id", value="ada"))
    assert world.say(told, source="keycloak") == ["waiting_for_account"]
    assert world.say(told, source="okta") == ["waiting_for_account", "done"]


Step = tuple[AccountEvent, ...]


@pytest.mark.parametrize(
    ("steps", "states", "names", "held"),
    [
        ([changed(ADA, NEW, 1)], ["done"], [NEW], False),
        ([changed(ADA, None, 1)], ["done"], [], False),
        # whoever has the old name now is a stranger; the new one is hers
        ([changed(ADA, NEW, 1), said(DISABLED, ADA, 2)], ["done", "waiting_for_account"], [NEW], 0),
        ([changed(ADA, NEW, 1), said(DISABLED, NEW, 2)], ["done", "done"], [NEW], True),
        ([changed(ADA, None, 1), said(DISABLED, ADA, 2)], ["done", "waiting_for_account"], [], 0),
        # what happened before the change and comes after it is about her
        ([changed(ADA, NEW, 2), said(DISABLED, ADA, 1)], ["done", "done"], [NEW], True),
        ([changed(ADA, None, 2), said(DISABLED, ADA, 1)], ["done", "done"], [], True),
        # before its link the new name may have been somebody else: it cuts, and parks
        ([changed(ADA, NEW, 2), said(DISABLED, NEW, 1)], ["done", "parked"], [NEW], True),
        ([changed(ADA, NEW, 2), said(ENABLED, NEW, 1)], ["done", "parked"], [NEW], False),
        # what waited for the new name, applied with the change
        ([said(DISABLED, NEW, 2), changed(ADA, NEW, 1)], ["done", "done"], [NEW], True),
        # a chain, backwards
        ([changed(NEW, OTHER, 2), changed(ADA, NEW, 1)], ["done", "done"], [OTHER], False),
        (
            [said(DISABLED, NEW, 1.5), changed(NEW, OTHER, 2), changed(ADA, NEW, 1)],
            ["done"] * 3,
            [OTHER],
            True,
        ),
        ([changed(ADA, NEW, 1), changed(NEW, ADA, 2)], ["done", "done"], [ADA], False),
        ([changed(NEW, ADA, 2), changed(ADA, NEW, 1)], ["done", "done"], [ADA], False),
        # recycled, then told what had become of it before
        ([changed(ADA, None, 2), changed(ADA, NEW, 1)], ["waiting_for_account", "done"], [NEW], 0),
        ([changed(ADA, NEW, 1), changed(ADA, None, 2)], ["done", "waiting_for_account"], [NEW], 0),
        # by their sequence, where their times say nothing
        (
            [changed(NEW, ADA, 1, 2), changed(ADA, NEW, 1, 1)],
            ["done", "done"],
            [ADA],
            False,
        ),
        (
            [changed(ADA, NEW, 1, 1), changed(NEW, ADA, 1, 3), changed(ADA, OTHER, 1, 2)],
            ["done", "done", "stale"],
            [ADA],
            False,
        ),
        # from before the account, and from the future
        ([changed(ADA, NEW, -1)], ["parked"], [ADA], False),
        ([changed(ADA, NEW, 11)], ["parked"], [ADA], False),
        # the same name
        ([event(CHANGED, ADA, at=at(1), new=mail("ADA@Example.com"))], ["done"], [ADA], False),
        # that of another account, and what a source has no say in
        ([changed(ADA, BOB, 1)], ["parked"], [ADA], False),
        (
            [event(CHANGED, ADA, at=at(1), new=Subject(format="account", value="x"))],
            ["parked"],
            [ADA],
            False,
        ),
        (
            [event(CHANGED, at=at(1), new=Subject(format="opaque", issuer="keycloak", value="1"))],
            ["parked"],
            [ADA],
            False,
        ),
    ],
)
@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one batch"])
def test_names_change(
    world: Dated,
    steps: Sequence[AccountEvent],
    states: list[str],
    names: list[str],
    held: bool,
    together: bool,
) -> None:
    if together:
        world.say(*steps)
    else:
        for one in steps:
            world.say(one)
    if not together:  # in a batch they go by their time, and another one may be the one that waits
        assert world.states() == states
    assert world.names() == names
    assert world.held() is bool(held)


@pytest.mark.parametrize("sequences", [(None, None), (2, 1)])
def test_the_older_of_two_that_contradict_each_other_is_a_persons_to_decide(
    world: Dated, sequences: tuple[int | None, int | None]
) -> None:
    """They may be of two people, of whom the later one had got the name."""
    later, earlier = sequences
    assert world.say(changed(ADA, OTHER, 2, later)) == ["done"]
    assert world.say(changed(ADA, NEW, 1, earlier)) == ["done", "parked"]
    assert world.names() == [OTHER]
    with world.database.begin() as tx:
        assert (inbox.listed(tx)[0].reason or "").startswith("contradicted: ")


def test_a_name_that_its_next_owner_gave_up_is_taken_from_him_when_he_is_known(
    world: Dated,
) -> None:
    """Told backwards, it is taken from Ada first, who had given it up to Bob long before."""
    assert world.say(changed(ADA, None, 3)) == ["done"]
    assert world.say(changed(ADA, NEW, 1)) == ["waiting_for_account", "done"]
    assert world.say(changed(BOB, ADA, 2)) == ["done"] * 3
    assert (world.names(ADA), world.names(BOB)) == ([NEW], [])


def test_what_another_gave_up_before_it_was_told_that_she_had_got_it(world: Dated) -> None:
    """Ada's address becomes Bob's, and he gives it up: that comes first, and takes it from her."""
    assert world.say(changed(ADA, NEW, 3)) == ["done"]
    assert world.say(changed(ADA, None, 1)) == ["done", "parked"]
    assert world.say(changed(BOB, ADA, 2)) == ["done", "parked", "done"]


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("new", [None, OTHER])
def test_what_counted_as_told_before_is_about_the_next_owner_when_he_is_known(
    world: Dated, new: str | None, order: Sequence[int]
) -> None:
    """Another source's change of a name that Ada gave up is that of Bob, who had got it."""
    told = [(changed(ADA, NEW, 1), "okta"), (changed(BOB, ADA, 2), "okta")]
    told.append((changed(ADA, new, 3), "keycloak"))
    for one in order:
        world.say(told[one][0], source=told[one][1])
    left = "parked" in world.states()  # told of the later one first, it is a person's to decide
    assert left == (new is not None and order.index(2) < order.index(0))
    if not left:
        assert (world.names(ADA), world.names(BOB)) == ([NEW], [new] if new else [])


def test_another_source_is_not_believed_to_tell_again_what_leads_to_a_later_name(
    world: Dated,
) -> None:
    """Bob's change to the address that Ada has by then is not hers to the one before it."""
    world.say(changed(ADA, NEW, 1), changed(NEW, OTHER, 2))
    assert world.say(changed(ADA, OTHER, 5), source="keycloak") == ["done"] * 3
    assert world.say(changed(BOB, ADA, 3)) == ["done", "done", "parked", "done"]
    assert world.say(changed(OTHER, NEW, 4)) == ["done"] * 5
    assert (world.names(ADA), world.names(BOB)) == ([NEW], [OTHER])


def test_what_the_rest_of_its_batch_puts_in_doubt_is_looked_at_again(world: Dated) -> None:
    """Ada's address is given up twice in it: by Bob, who has got it, and before by herself."""
    world.receive(changed(BOB, None, 3), changed(ADA, None, 5), source="keycloak")
    world.say(changed(ADA, BOB, 2), changed(NEW, ADA, 4))
    assert world.say(changed(BOB, NEW, 1)) == ["done"] * 5
    assert (world.names(ADA), world.names(BOB)) == ([], [])


def test_the_mail_address_stays_and_a_person_is_told(world: Dated) -> None:
    world.say(changed(ADA, NEW, 1))
    with world.database.begin() as tx:
        ada = accounts.find(tx, ADA)  # where mails go, and what operators call it
    [alarm] = world.alarms
    assert (alarm["alarm"], alarm["account"]) == ("address_unlinked", str(ada.id))
    assert "`keyturn accounts email ACCOUNT NEW`" in str(alarm["why"])
    assert world.audited() == [
        ("source:okta", "account.unlinked", f"email {ADA}: test.identity_changed (event 1)"),
        ("source:okta", "account.linked", f"email {NEW}: test.identity_changed (event 1)"),
    ]
    with world.database.begin() as tx:
        old, new = accounts.known_as(tx, ada.id)
    assert (old.unlinked_at, old.unlinked_by) == (at(1), "source:okta")
    assert (new.linked_at, new.linked_by, new.unlinked_at) == (at(1), "source:okta", None)


def test_a_taken_name_parks_loudly_and_comes_when_it_is_free(world: Dated) -> None:
    assert world.say(changed(ADA, BOB, 1)) == ["parked"]
    [alarm] = world.alarms
    assert alarm["alarm"] == "identity_taken"
    assert world.names(BOB) == [BOB]
    world.say(changed(BOB, OTHER, 2))
    world.apply()
    assert world.states() == ["done", "done"]
    assert (world.names(ADA), world.names(BOB)) == ([BOB], [OTHER])
    world.say(said(DISABLED, BOB, 3))
    assert (world.held(ADA), world.held(BOB)) == (True, False)
    world.say(said(Action.DELETED, BOB, 1.5))  # then it was still his
    assert world.held(BOB)


def test_what_an_operator_unlinks_hits_nobody_and_frees_the_name(world: Dated) -> None:
    world.say(changed(ADA, BOB, 1))
    with world.database.begin() as tx:
        bob = accounts.find(tx, BOB).id
    world.database.run(lambda tx: linking.unlink(tx, bob, mail("BOB@example.com"), actor="op"))
    with pytest.raises(Refused) as refused:
        world.database.run(lambda tx: linking.unlink(tx, bob, mail(BOB), actor="op"))
    assert refused.value.code == "identity_unknown"
    world.apply()
    assert world.states() == ["done"]
    assert (world.names(ADA), world.names(BOB)) == ([BOB], [])


def moved(
    world: Dated, account: str, email: str, *, unlink_old: bool = False, dry_run: bool = False
) -> linking.Move:
    return world.database.run(
        lambda tx: linking.move_mails(
            tx,
            accounts.find(tx, account).id,
            email,
            unlink_old=unlink_old,
            dry_run=dry_run,
            actor="op",
            policy=world.policy,
        )
    )


def refused(world: Dated, account: str, email: str) -> str:
    with pytest.raises(Refused) as found:
        moved(world, account, email)
    return found.value.code


def test_an_operator_moves_the_mails_after_a_change(world: Dated) -> None:
    """The new address names the account since the change; there is nothing to link."""
    world.say(changed(ADA, NEW, 1))
    assert moved(world, ADA, NEW.upper()) == linking.Move(ADA, NEW, links=False, unlinks=False)
    assert world.names(NEW) == [NEW]
    assert world.audited()[2:] == []
    with world.database.begin() as tx:
        why = "SELECT why FROM keyturn.audit WHERE action = 'account.changed' AND actor = 'op'"
        assert tx.scalar(why) == f"email '{ADA}' -> '{NEW}'"
        with pytest.raises(Refused):
            accounts.find(tx, ADA)
    world.account(ADA)  # the old one is somebody else's now
    world.say(said(DISABLED, ADA, 11))
    assert (world.held(NEW), world.held(ADA)) == (False, True)


@pytest.mark.parametrize("unlink_old", [False, True])
def test_an_address_that_is_moved_to_names_the_account(world: Dated, unlink_old: bool) -> None:
    """What waited for it is applied at once; the old one names the account too, unless said."""
    assert world.say(said(DISABLED, NEW, 1)) == ["waiting_for_account"]
    assert moved(world, ADA, NEW, unlink_old=unlink_old, dry_run=True).links
    assert (world.names(), world.held()) == ([ADA], False)
    moved(world, ADA, NEW, unlink_old=unlink_old)
    assert world.held(NEW)
    assert world.names(NEW) == ([NEW] if unlink_old else [ADA, NEW])
    expected = [("op", "account.linked", f"email {NEW}")]
    expected += [("op", "account.unlinked", f"email {ADA}")] if unlink_old else []
    assert world.audited() == expected
    world.now = at(12)
    late = world.say(said(DISABLED, ADA, 11.5))[-1]
    assert late == ("waiting_for_account" if unlink_old else "done")


def test_an_address_that_is_unlinked_frees_it_for_the_change_that_waits(world: Dated) -> None:
    assert world.say(changed(BOB, ADA, 1)) == ["parked"]
    moved(world, ADA, NEW, unlink_old=True)
    world.apply()
    assert world.states() == ["done"]
    assert (world.names(NEW), world.names(BOB)) == ([NEW], [ADA])


def test_an_address_that_was_lost_comes_back(world: Dated) -> None:
    """The source was wrong: the account is to be known by its own address again."""
    world.say(changed(ADA, None, 1))
    assert moved(world, ADA, ADA, unlink_old=True) == linking.Move(ADA, ADA, True, False)
    assert world.names() == [ADA]
    assert not moved(world, ADA, ADA).changes
    assert len(world.audited()) == 2


def test_no_address_is_taken_from_another_account(world: Dated) -> None:
    assert refused(world, ADA, BOB) == "address_taken"
    world.say(changed(BOB, NEW, 1))
    assert refused(world, ADA, BOB) == "address_taken"  # its mails still go there
    assert refused(world, ADA, NEW) == "identity_taken"
    assert refused(world, ADA, "no address") == "email_invalid"
    assert refused(world, "eve@example.com", OTHER) == "user_unknown"
    assert (world.names(ADA), world.names(BOB)) == ([ADA], [NEW])


def test_mails_that_wait_to_be_sent_go_to_the_new_address(world: Dated) -> None:
    with world.database.begin() as tx:
        ada = accounts.find(tx, ADA).id
        outbox.add(tx, outbox.MAIL, "notice", {}, account_id=ada)
    moved(world, ADA, NEW)
    leased = world.database.run(lambda tx: outbox.lease(tx, outbox.MAIL, world.policy))
    assert [one.recipient for one in leased.messages] == [NEW]


def test_two_sources_tell_of_the_same_change(world: Dated) -> None:
    assert world.say(changed(ADA, NEW, 2)) == ["done"]
    assert world.say(changed(ADA, NEW, 3), source="google") == ["done", "done"]
    assert world.say(changed(ADA, NEW, 1), source="entra") == ["done"] * 3
    assert world.names() == [NEW]
    assert world.say(said(DISABLED, NEW, 1.2)) == ["done"] * 4


def test_a_conflict_and_a_hint_change_no_name(world: Dated) -> None:
    for new in (NEW, OTHER):
        world.receive(event(CHANGED, at=at(1), event_id="1", new=mail(new)))
    world.receive(event(CHANGED, at=at(2), certainty=Certainty.HINT, new=mail(OTHER)))
    world.apply()
    assert world.states() == ["done", "parked", "parked"]
    assert world.names() == [NEW]


@pytest.mark.parametrize(
    ("one", "trust", "reason"),
    [
        (changed(ADA, NEW, 1), frozenset({DISABLED}), "not_trusted"),
        (
            event(CHANGED, subject=Subject(format="tenant", value="acme"), new=mail(NEW)),
            frozenset(Action),
            "not_supported",
        ),
    ],
    ids=["trust", "tenant"],
)
def test_what_parks_at_the_door(
    world: Dated, one: AccountEvent, trust: frozenset[Action], reason: str
) -> None:
    source = Source("okta", "okta", trust)
    world.database.run(lambda tx: inbox.accept(tx, source, [Received("1", one, {}, b"")]))
    world.apply()
    with world.database.begin() as tx:
        [row] = inbox.listed(tx)
    assert row.state == "parked"
    assert (row.reason or "").startswith(f"{reason}: ")


def test_a_paused_stream_is_told_of_once(world: Dated) -> None:
    paused = AccountEvent(
        action=Action.NONE,
        certainty=Certainty.HINT,
        raw_type="https://schemas.openid.net/secevent/ssf/event-type/stream-updated",
        reason="paused: maintenance",
        event_id="9",
    )
    for _ in range(2):
        world.receive(paused)
    assert world.states() == ["parked"]
    assert world.alarms == [
        {"alarm": "stream_paused", "source": "okta", "why": "paused: maintenance"}
    ]
