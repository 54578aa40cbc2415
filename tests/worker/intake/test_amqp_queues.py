"""The queue that the intake makes on RabbitMQ: what it is, what it gets, how much it gives."""

import json

import pytest
from amqp.exceptions import PreconditionFailed  # type: ignore[import-untyped]
from kombu import Connection

from models.base import Database
from tests.eventually import eventually
from tests.worker.intake.exchanges import Exchange, running
from tests.worker.intake.messages import FIXTURES
from tests.worker.intake.streams import stored
from tests.worker.intake.test_amqp import SOON, Asked
from worker.intake import amqp, amqp_queues
from worker.intake.accept import Producer
from worker.intake.amqp_queues import DEAD, DELIVERIES
from worker.intake.verification import KeysUnavailable


def test_keycloaks_plugin_and_what_is_bound_for_it(hr: Exchange, database: Database) -> None:
    """As docs/sources.md has it: `amq.topic` is there already, and logins and failures stay out."""
    keys = "KK.EVENT.ADMIN.*.SUCCESS.USER.*"
    own, hr.name = hr.name, "amq.topic"
    keycloak = Producer(hr.source, "keycloak")
    message = json.loads((FIXTURES / "keycloak-user-update-disabled.json").read_bytes())
    with Connection(hr.url) as connection:
        assert hr.read(keycloak, keys).join(connection.connection, lambda queue, message: None)
    for number, key in enumerate(
        (
            "KK.EVENT.CLIENT.acme.SUCCESS.account.LOGIN",
            "KK.EVENT.ADMIN.acme.ERROR.USER.UPDATE",
            "KK.EVENT.ADMIN.acme.SUCCESS.GROUP_MEMBERSHIP.DELETE",
            "KK.EVENT.ADMIN.acme.SUCCESS.USER.UPDATE",
        )
    ):
        hr.publish(json.dumps(message | {"id": f"kc-{number}"}).encode(), key=key)
    try:
        assert hr.ready() == 1
        with running(hr.url, database, hr.read(keycloak, keys)):
            eventually(lambda: stored(database) == ["kc-3"], within=SOON)
    finally:
        hr.name = own


def test_its_queue_is_durable_and_keeps_what_is_set_aside(hr: Exchange) -> None:
    """A declaration that is not equal is refused by the server."""
    hr.bind()
    due = {"x-queue-type": "quorum", "x-dead-letter-exchange": DEAD, "x-delivery-limit": DELIVERIES}
    others = [{**due, "x-queue-type": "classic"}, {**due, "x-dead-letter-exchange": "elsewhere"}]
    with Connection(hr.url) as connection:
        declare = connection.default_channel.queue_declare
        declare(hr.queue, durable=True, auto_delete=False, arguments=due)
    for arguments in others:
        with Connection(hr.url) as connection:
            declare = connection.default_channel.queue_declare
            with pytest.raises(PreconditionFailed):
                declare(hr.queue, durable=True, auto_delete=False, arguments=arguments)


def test_no_more_is_taken_than_can_be_worked_on(
    hr: Exchange, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amqp_queues, "PREFETCH", 3)
    monkeypatch.setattr(amqp, "KEYS_PAUSE", 0.5)
    proof = Asked()
    proof.answer = KeysUnavailable("nobody answers")
    hr.bind()
    hr.disable(*range(10))
    with running(hr.url, database, hr.read(Producer(hr.source, "native", verifier=proof))):
        eventually(lambda: hr.ready() == 7, within=SOON)
        proof.answer = None
        eventually(lambda: len(stored(database)) == 10, within=SOON)
    assert hr.ready() == 0
