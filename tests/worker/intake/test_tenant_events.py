"""What producers really send about tenants, from the message to the refusal of a member's key."""

from collections.abc import Iterator
from typing import Any

import pytest

from models.base import Database
from models.policy import Policy
from models.tenants_desk import Tenants
from tests.worker.intake.messages import changed, event
from tests.world import ADA, World

RISC = "https://schemas.openid.net/secevent/risc/event-type/"


def suspension(action: str) -> Any:
    at = "2026-11-20T08:00:00Z" if action == "suspend" else None
    name = "github-installation-unsuspend"
    return changed(name, action=action, installation__suspended_at=at)


def organisation(kind: str, sequence: int) -> Any:
    return changed(
        "zitadel-user-deactivated",
        event_type=f"org.{kind}",
        aggregateType="org",
        aggregateID="3131",
        sequence=sequence,
    )


def signal(kind: str, at: int, tenant: dict[str, str]) -> Any:
    return {
        "iss": "https://login.example.com/",
        "jti": f"signal-{at}",
        "iat": at,
        "aud": "us",
        "sub_id": {"format": "complex", "tenant": tenant},
        "events": {f"{RISC}account-{kind}": {}},
    }


def plain(kind: str, sequence: int) -> Any:
    return {"type": f"tenant.{kind}", "tenant": "acme", "sequence": sequence}


OPAQUE = {"format": "opaque", "id": "acme"}
ISSUED = {"format": "iss_sub", "iss": "https://login.example.com/", "sub": "acme"}
HISTORIES = [
    ("native", ("native", "acme"), [plain("disabled", 1), plain("enabled", 2)]),
    ("github", ("github", "7001"), [suspension("suspend"), suspension("unsuspend")]),
    (
        "zitadel",
        ("zitadel", "3131"),
        [organisation("deactivated", 1), organisation("reactivated", 2)],
    ),
    (
        "ssf",
        ("ssf", "acme"),
        [signal("disabled", 1795162500, OPAQUE), signal("enabled", 1795162600, OPAQUE)],
    ),
    (
        "ssf",
        ("https://login.example.com/", "acme"),
        [signal("disabled", 1795162500, ISSUED), signal("enabled", 1795162600, ISSUED)],
    ),
]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    database = Database(database_url)
    yield World(database)
    database.close()


@pytest.mark.parametrize(
    ("provider", "known_as", "messages"),
    HISTORIES,
    ids=["native", "github", "zitadel", "ssf", "ssf with an issuer"],
)
def test_a_tenant_is_cut_and_freed(
    world: World, provider: str, known_as: tuple[str, str], messages: list[Any]
) -> None:
    desk = Tenants(world.database, Policy(), "op")
    desk.create("Acme", known_as=[known_as])
    world.account()
    desk.assign(ADA, "Acme")
    _, text = world.key()
    expected = False
    for message in messages:
        header = {"x_github_event": "installation"} if provider == "github" else {}
        world.receive(event(provider, message, **header), source=provider)
        assert world.apply() == {"done": 1}
        assert world.verify(text).valid is expected
        expected = not expected
