"""`keyturn keys rotate KEY --compromised`: the hold first, at once; then the successor."""

from models.compromise import Replacement
from models.operator import Operator
from worker.cli import key_views, output
from worker.cli.asking import agreed
from worker.cli.session import operator


def replace_compromised(
    named: str, reason: str | None, *, yes: bool, dry_run: bool, json: bool
) -> None:
    """Stop a key, given by its id or its text, and show its successor this once.

    Whatever keeps the successor from being issued is told after the key was stopped.
    """
    with operator() as client:
        seen = key_views.look(client, _id(client, named))
        key = str(seen.key.id)
        plan = [
            f"Stop {seen.named} for good, at once, and the retired keys of its family.",
            *seen.warnings(),
            "Its successor is issued and shown here, once, unless one is in use already.",
        ]
        would = {"action": "replace_compromised", **seen.document()}
        if not agreed("Stop it?", plan, would, yes=yes, dry_run=dry_run, json=json):
            return
        stopped = client.stop_compromised(key, reason)
        output.say(f"Key {key} {'is' if stopped else 'was'} stopped.")
        try:
            replacement = client.replace_compromised(key)
        except KeyboardInterrupt:
            output.say("Interrupted. The key is stopped; give the same command again.")
            raise
        _show(replacement, key, json)


def _id(client: Operator, named: str) -> str:
    """The id of a key that may have been given by its text."""
    found = client.verify(named, record=False).key_id
    return named if found is None else str(found)


def _show(replacement: Replacement, key: str, json: bool) -> None:
    rotation, text = replacement.rotation, replacement.secret.reveal()
    document = {
        "id": rotation.new_key_id,
        "text": text,
        "name": rotation.name,
        "expires_at": rotation.new_expires_at,
        "rotation_id": rotation.id,
        "old_key_id": key,
    }
    output.answer(
        json,
        document,
        output.facts(id=rotation.new_key_id, text=text, ends=rotation.new_expires_at),
        "The text is shown this once: hand it to the key's holder, and to nobody who shows the "
        "old one.",
    )
