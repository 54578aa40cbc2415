"""Events about accounts, from their intake on, and what is told of them and of keys that end."""

from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

from models import inbox
from models.errors import Refused
from models.events import AccountEvent, Action, Certainty, Subject
from models.inbox import Rejection, Source
from tests.faults.flow import Flow, Step, Verb, command, task
from tests.faults.site import DAY, HOUR, MINUTE, POLICY, Site
from tests.world import ADA, EPOCH, event

BOB, CAROL, NOBODY = "bob@example.com", "carol@example.com", "nobody@example.com"
DISABLED, ENABLED = Action.DISABLED, Action.ENABLED


def _intake(*events: AccountEvent | Rejection) -> Step:
    """A transport hands messages over; what it gets no answer for, it hands over again."""
    messages = [(f"new {number}", content) for number, content in enumerate(events)]
    return command(lambda site: site.receive("okta", *messages))


APPLIED = (task("accounts.apply_events"), task("keys.settle"))


def _account(site: Site) -> None:
    site.account(ADA)
    for name in ("build", "deploy"):
        site.key(name, ADA)
    site.work()


def _after(*events: AccountEvent) -> Verb:
    """An account about which this was said before."""

    def prepare(site: Site) -> None:
        _account(site)
        for number, one in enumerate(events):
            site.receive("okta", (f"old {number}", one))
            site.work()
            site.later(MINUTE)

    return prepare


def _leak(site: Site) -> None:
    """A scanner reports one of the account's two keys by the SHA-256 of its text."""
    digest = sha256(site.memory["build text"].encode()).hexdigest()
    said = AccountEvent(action=Action.KEY_LEAKED, key_digest=digest, raw_type="key.leaked")
    site.receive("okta", ("new", said))


def _mixed(site: Site) -> None:
    """Twelve events of every outcome have come in, from two sources."""
    for email in (ADA, BOB, CAROL):
        site.account(email)
        site.key(f"key of {email}", email)
    site.receive("okta", ("1", event(DISABLED, CAROL, event_id="first")))
    site.work()
    site.later(MINUTE)
    of_okta = [
        event(DISABLED, ADA, at=EPOCH + 2 * MINUTE),
        event(ENABLED, ADA, at=EPOCH),
        event(ENABLED, ADA, at=EPOCH + 3 * MINUTE),
        event(Action.DELETED, BOB),
        event(ENABLED, CAROL, event_id="first"),
        event(DISABLED, NOBODY),
        event(Action.COMPROMISED, NOBODY),
    ]
    of_others = [
        event(DISABLED, ADA, sequence=7),
        event(ENABLED, ADA, sequence=6),
        event(Action.COMPROMISED, BOB),
        event(ENABLED, BOB, at=EPOCH + HOUR),
        event(DISABLED, CAROL, at=EPOCH - DAY),
    ]
    for source, events in (("okta", of_okta), ("keycloak", of_others)):
        site.receive(source, *[(f"{source} {n}", one) for n, one in enumerate(events)])


def _five(site: Site) -> None:
    """Two batches of events, each about an account of its own."""
    for n in range(5):
        site.account(f"user{n}@example.com")
        site.key(f"key {n}", f"user{n}@example.com")
    site.work()
    actions = (DISABLED, Action.DELETED, Action.COMPROMISED, ENABLED, DISABLED)
    events = [event(action, f"user{n}@example.com") for n, action in enumerate(actions)]
    site.receive("okta", *[(f"{n}", one) for n, one in enumerate(events)])


def _parked(site: Site) -> None:
    _account(site)
    site.receive("okta", ("1", event(DISABLED)), trust=frozenset())
    site.work()


def _rejected(site: Site) -> None:
    _account(site)
    site.receive("okta", ("1", Rejection("not_json", "it could not be read yet")))
    site.work()


def _replay(site: Site) -> None:
    [waiting] = site.operator.events()
    with suppress(Refused):  # event_finished: it was put back before
        site.database.run(lambda tx: inbox.requeue(tx, waiting.id, Source("okta", "okta")))


def _replace(site: Site) -> None:
    """What could not be read is read again, as `keyturn events replay` does."""
    for found in site.operator.events(state="rejected"):
        site.replace(found.id, event(DISABLED))


def _appear(site: Site) -> None:
    with suppress(Refused):  # user_exists: it was created before
        site.operator.create_account(BOB, "member")


def _rename() -> AccountEvent:
    """The account gets another address; what waited for that one comes in with it."""
    new = Subject(format="email", value=BOB)
    return event(Action.IDENTITY_CHANGED, at=EPOCH + MINUTE, new=new)


def _awaited(site: Site) -> None:
    _account(site)
    site.receive("okta", ("early", event(DISABLED, BOB, at=EPOCH + 2 * MINUTE)))
    site.work()
    site.later(3 * MINUTE)


def _fallen_silent(site: Site) -> None:
    """One source has been silent for too long, another one not."""
    _account(site)
    site.receive("okta", ("1", event(DISABLED)))
    site.work()
    site.later(2 * HOUR)
    site.receive("keycloak", ("1", event(DISABLED)))
    site.work()


def _notices_due(site: Site) -> None:
    """Owners of keys in every state are to be warned, and nothing of that was planned yet."""
    for email in (ADA, BOB):
        site.account(email)
        for name, life in (("month", 90 * DAY), ("week", 37 * DAY), ("ended", 30 * DAY)):
            site.key(f"{name} of {email}", email, 70 * DAY if name == "month" else life)
    site.key("held", ADA, 60 * DAY)
    site.operator.disable(site.memory["held"])
    site.work()
    site.later(30 * DAY)
    site.run("keys.expire_due")
    site.work()
    site.later(HOUR)


def _notices_posted(site: Site) -> None:
    """The same, planned and posted; meanwhile one key was deleted, and one account held."""
    _notices_due(site)
    site.run("notices.plan")
    site.operator.delete(site.memory[f"week of {ADA}"])
    site.operator.disable_account(BOB)


def _to_deliver(site: Site) -> None:
    """Seven messages wait, on both channels."""
    site.account(ADA)
    for n in range(4):
        site.key(f"key {n}", ADA)
    site.operator.rotate(site.memory["key 0"])
    site.operator.disable(site.memory["key 1"])


EVENT_FLOWS = (
    Flow("event_disabled", _account, [_intake(event(DISABLED, event_id="1")), *APPLIED]),
    Flow("event_enabled", _after(event(DISABLED)), [_intake(event(ENABLED)), *APPLIED]),
    Flow("event_deleted", _account, [_intake(event(Action.DELETED)), *APPLIED]),
    Flow("event_compromised", _account, [_intake(event(Action.COMPROMISED)), *APPLIED]),
    Flow("event_leaked", _account, [command(_leak), *APPLIED]),
    Flow(
        "event_conflict",
        _after(event(ENABLED, event_id="1")),
        [_intake(event(DISABLED, event_id="1")), *APPLIED],
    ),
    Flow(
        "event_stale",
        _after(event(DISABLED, at=EPOCH + MINUTE)),
        [_intake(event(ENABLED, at=EPOCH)), *APPLIED],
    ),
    Flow(
        "event_waiting",
        _account,
        [_intake(event(DISABLED, BOB)), APPLIED[0], command(_appear)],
    ),
    Flow(
        "event_refused",
        _account,
        [
            _intake(
                Rejection("not_json", "it ends early"), event(DISABLED, certainty=Certainty.HINT)
            )
        ],
    ),
    Flow(
        "apply_mixed",
        _mixed,
        [task("accounts.apply_events")],
        policy=replace(POLICY, apply_batch=100),
    ),
    Flow("apply_batches", _five, [task("accounts.apply_events")]),
    Flow("identity_changed", _awaited, [_intake(_rename()), *APPLIED]),
    Flow(
        "watch_sources",
        _fallen_silent,
        [task("upkeep.watch_sources")],
        policy=replace(POLICY, silent_after={"okta": HOUR, "keycloak": HOUR, "hr": 30 * DAY}),
    ),
    Flow("replay", _parked, [command(_replay), *APPLIED]),
    Flow("replay_rejected", _rejected, [command(_replace), *APPLIED]),
    Flow("notices_plan", _notices_due, [task("notices.plan")]),
    Flow("notices_deliver", _notices_posted, [task("outbox.deliver")]),
    Flow("deliver", _to_deliver, [task("outbox.deliver")]),
    Flow("ring_due", _account, [task("upkeep.ring_due")]),
    Flow("check_invariants", _to_deliver, [task("upkeep.check_invariants")]),
)
