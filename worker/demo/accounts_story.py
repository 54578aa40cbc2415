"""The chapters about accounts: what producers say of them, and what becomes of their keys."""

from .asking import YES
from .cast import ADA, BEN, CLEO, DAN, EVE, FINN, GITA, HUGO, KIRA, LENA
from .producers import message
from .stage import Stage
from .timeline import wait

HELD = "account_held"


def native(stage: Stage) -> None:
    """Typed by hand: disabled, enabled, and the first one delivered once more."""
    stage.chapter("Native events, typed by hand")
    event = {"account": ADA.email, "reason": "left the company"}
    sent = stage.producers.type_by_hand(type="account.disabled", id="42", **event)
    stage.until(ADA, HELD, "HR disables Ada", since=sent)
    stage.command_says(ADA, HELD, "the same asked by `keyturn keys verify`")
    sent = stage.producers.type_by_hand(type="account.enabled", id="43", account=ADA.email)
    stage.until(ADA, YES, "HR enables Ada", since=sent)
    stage.producers.type_by_hand(type="account.disabled", id="42", **event)
    wait(stage.producers.all_taken, bool)
    stage.becomes("42", "done", "Ada's first event is delivered again: it is one event")
    stage.says(ADA, YES, "and it cut nothing the second time")


def okta(stage: Stage) -> None:
    """Deactivated, suspended in one hook with somebody else, deleted."""
    stage.chapter("Okta event hooks")
    sent = stage.producers.send(message("okta-deactivates-ben"))
    stage.until(BEN, HELD, "Okta deactivates Ben", since=sent)
    again = message("okta-activates-ben")
    sent = stage.producers.send(again)
    stage.producers.send(again)
    stage.until(BEN, YES, "Okta activates Ben, delivered twice", since=sent)
    sent = stage.producers.send(message("okta-suspends-cleo-and-hugo"))
    stage.until(CLEO, HELD, "Okta suspends Cleo and Hugo in one hook: Cleo", since=sent)
    stage.until(HUGO, HELD, "Okta suspends Cleo and Hugo in one hook: Hugo", since=sent)
    sent = stage.producers.send(message("okta-unsuspends-cleo"))
    stage.until(CLEO, YES, "Okta unsuspends Cleo (a LogEvent)", since=sent)
    sent = stage.producers.send(message("okta-deletes-dan"))
    stage.until(DAN, HELD, "Okta deletes Dan: held at once, deleted later", since=sent)


def two_holds(stage: Stage) -> None:
    """Lifting one hold lifts no other; a hijacked account is not enabled by the HR system."""
    stage.chapter("Holds of two sources")
    sent = stage.producers.send(message("native-disables-hugo"))
    event = "hr-2026-0107"
    stage.becomes(event, "done", "HR disables Hugo too, whom Okta has suspended")
    stage.producers.send(message("native-enables-hugo"))
    stage.becomes("hr-2026-0108", "done", "HR enables Hugo (a CloudEvent)")
    stage.says(HUGO, HELD, "Okta's hold on Hugo stands")
    shown = stage.stack.keyturn("accounts", "show", HUGO.email)
    holds = [f"{hold['source']}/{hold['kind']}" for hold in shown["holds"]]
    stage.fact("what holds Hugo", ["okta/disabled"], holds, say="accounts show: okta/disabled")
    sent = stage.producers.send(message("okta-unsuspends-hugo"))
    stage.until(HUGO, YES, "Okta unsuspends Hugo", since=sent)
    sent = stage.producers.send(message("native-hijacked-lena"))
    stage.until(LENA, HELD, "Lena's account is hijacked", since=sent)
    stage.producers.send(message("native-enables-lena"))
    stage.becomes("hr-2026-0109", "done", "HR enables Lena, who is not disabled but compromised")
    stage.says(LENA, HELD, "so her key stays cut")
    _lift(stage, LENA.email, "native", "compromised")
    stage.says(LENA, YES, "an operator lifts the hold on Lena")


def keycloak(stage: Stage) -> None:
    """States instead of transitions, one that says nothing, a deletion that is taken back."""
    stage.chapter("Keycloak admin events")
    sent = stage.producers.send(message("keycloak-disables-eve"))
    stage.until(EVE, HELD, "Keycloak saves Eve with enabled: false", since=sent)
    sent = stage.producers.send(message("keycloak-enables-eve"))
    stage.until(EVE, YES, "Keycloak saves Eve with enabled: true", since=sent)
    stage.producers.send(message("keycloak-changes-eve"))
    stage.listed("parked", "Keycloak changes Eve and does not say how", reason="hint")
    stage.says(EVE, YES, "a hint cuts nothing; it waits for a person")
    sent = stage.producers.send(message("keycloak-deletes-finn"))
    stage.until(FINN, HELD, "Keycloak deletes Finn", since=sent)
    _lift(stage, FINN.email, "keycloak", "deleted")
    stage.says(FINN, YES, "an operator takes that back in time")


def out_of_order(stage: Stage) -> None:
    """A newer message overtakes an older one."""
    stage.chapter("Messages out of order")
    sent = stage.producers.send(message("keycloak-disables-gita", ago=10))
    stage.until(GITA, HELD, "Keycloak disabled Gita 10 s ago", since=sent)
    stage.producers.send(message("keycloak-enables-gita", ago=60))
    stage.becomes(
        "e2a7c0d4-0d6f-4c58-8d0c-000000000005", "stale", "an older enable of Gita comes late"
    )
    stage.says(GITA, HELD, "Gita stays cut")
    sent = stage.producers.send(message("keycloak-enables-gita-again"))
    stage.until(GITA, YES, "a newer enable of Gita", since=sent)


def latecomer(stage: Stage) -> None:
    """An event about an account that nobody knows yet."""
    stage.chapter("An account that comes later than its event")
    stage.producers.send(message("okta-deactivates-kira"))
    event = "7b0d0008-c81f-11f1-9a60-0242ac140003"
    stage.becomes(event, "waiting_for_account", "Okta deactivates Kira, whom nobody knows")
    held = stage.create_account(KIRA)["held"]
    stage.fact("Kira's account is created", True, held, say="accounts create: held")
    wanted = stage.wanted_key(KIRA, "30", "day")
    refused = stage.stack.keyturn(*wanted, exit_code=3)["error"]["code"]
    stage.fact("a key for Kira", HELD, refused, say=f"keys create: refused, {refused}")
    stage.producers.send(message("okta-activates-kira"))
    stage.becomes("7b0d0009-c81f-11f1-9a60-0242ac140003", "done", "Okta activates Kira")
    stage.create_key(KIRA)
    stage.says(KIRA, YES, "a key for Kira, asked for again")


def unreadable(stage: Stage) -> None:
    """What cannot be read is kept, and what comes behind it is read."""
    stage.chapter("A message that cannot be read")
    stage.producers.send(message("okta-deactivates-ben").cut_off())
    stage.listed("rejected", "an Okta hook that lost its end", reason="not_json")
    stage.says(BEN, YES, "it cut nobody")


def _lift(stage: Stage, email: str, source: str, kind: str) -> None:
    stage.stack.keyturn("accounts", "enable", email, "--source", source, "--kind", kind, "--yes")
