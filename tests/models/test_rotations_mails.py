"""What rotations and notices commit to be mailed can be mailed: payloads fit their templates."""

from email.message import EmailMessage

from models import notices, outbox
from tests.models.notice_verbs import plan
from tests.models.scene import DAY, HOUR, Scene
from worker.channels.messages import mail


def sent(scene: Scene, kind: str) -> EmailMessage:
    """The one waiting message of a kind, as the mail that it becomes."""
    with scene.database.begin() as tx:
        leased = outbox.lease(tx, "mail", scene.policy)
        messages, _ = notices.refresh(tx, leased.messages)
    [message] = [message for message in messages if message.kind == kind]
    return mail(message, "keyturn@example.com")


def text(message: EmailMessage) -> str:
    content: str = message.get_content()
    return content


def test_issued(scene: Scene) -> None:
    rotation = scene.request(scene.key(name="ci"))
    made = sent(scene, "rotation.issued")
    assert made["To"] == "ada@example.com"
    assert str(rotation.old_key_id) in text(made)
    assert "Wednesday, 04 March 2026, 12:00 UTC" in text(made)


def test_claimed_again(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    scene.refusal(rotation.old_key_id)
    assert str(rotation.new_key_id) in text(sent(scene, "rotation.claimed_again"))


def test_blocked(scene: Scene) -> None:
    rotation = scene.draining()
    scene.later(7 * DAY)
    scene.use(rotation.old_key_id)
    scene.advance()
    assert "the old key is still in use" in text(sent(scene, "rotation.blocked"))


def test_cancelled(scene: Scene) -> None:
    scene.request(scene.key())
    scene.later(72 * HOUR)
    scene.advance()
    assert "nobody fetched the new key in time" in text(sent(scene, "rotation.cancelled"))


def test_completed(scene: Scene) -> None:
    rotation = scene.retired()
    scene.later(7 * DAY)
    scene.advance()
    assert str(rotation.new_key_id) in text(sent(scene, "rotation.completed"))


def test_expiring_and_expired(scene: Scene) -> None:
    scene.key(60 * DAY, name="ending")
    scene.later(29 * DAY)
    scene.key(30 * HOUR, name="ended")
    scene.later(30 * HOUR)
    plan(scene)
    with scene.database.begin() as tx:
        leased = outbox.lease(tx, "mail", scene.policy)
        messages, _ = notices.refresh(tx, leased.messages)
    mails = {message.kind: mail(message, "keyturn@example.com") for message in messages}
    assert mails["notice.expiring"]["Subject"] == "Your API key expires in 30 days or less"
    assert "ending" in text(mails["notice.expiring"])
    assert mails["notice.expired"]["Subject"] == "Your API key has expired"
    assert "ended" in text(mails["notice.expired"])
