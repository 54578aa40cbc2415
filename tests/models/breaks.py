"""How to break each promise behind everybody's back: statements on the world of `healthy`.

Each breaks one row of one promise and no other promise.
"""

from collections.abc import Callable, Mapping
from typing import Final

from models import api_keys, audit_seal
from tests.eventually import eventually
from tests.models.healthy import BOB, CAROL, FREE, HELD
from tests.models.scene import Scene

Break = str | Callable[[Scene], None]


def key(name: str) -> str:
    """The first key of a name, as SQL."""
    return f"(SELECT id FROM keyturn.api_keys WHERE name = '{name}' AND family_id = id)"


def old(name: str) -> str:
    """A condition for the rotations away from that key, as SQL."""
    return f"old_key_id = {key(name)}"


def use(name: str, when: str) -> str:
    """A use that was recorded at some time of the key's row."""
    return f"""
        UPDATE keyturn.key_uses SET last_used_at = {when} FROM keyturn.api_keys k
        WHERE key_id = k.id AND k.id = {key(name)}
    """


def apply(scene: Scene, given: Break) -> None:
    """Do it; each of its statements must find something."""
    if callable(given):
        return given(scene)
    for statement in given.split(";"):
        with scene.database.begin() as tx:
            assert tx.count(statement) != 0, statement
    return None


def _revert(name: str) -> str:
    """As if the last change of a key had never come, its audit entry included."""
    return f"""
        UPDATE keyturn.api_keys k SET version = k.version - 1, status = e.before
        FROM keyturn.audit e
        WHERE k.id = {key(name)} AND e.key_id = k.id AND e.version = k.version;
        DELETE FROM keyturn.audit e USING keyturn.api_keys k
        WHERE k.id = {key(name)} AND e.key_id = k.id AND e.version > k.version
    """


def _rotation(name: str, new_key: str) -> str:
    """One more rotation of a family, cancelled."""
    return f"""
        ALTER TABLE keyturn.rotations DISABLE TRIGGER rotation_begins;
        INSERT INTO keyturn.rotations (id, account_id, family_id, old_key_id, new_key_id, state,
            requested_by, sealed_until, issued_at, next_check_at, ended_at, cancel_reason)
        SELECT gen_random_uuid(), account_id, family_id, old_key_id, {new_key}, 'cancelled',
            'op', :now, :now, :now, :now, 'why'
        FROM keyturn.rotations WHERE {old(name)}
    """


def _delete_successor(scene: Scene) -> None:
    [row] = scene.sql(f"SELECT new_key_id AS id FROM keyturn.rotations WHERE {old('retired')}")
    with scene.database.begin() as tx:
        api_keys.locked(tx, str(row["id"]))
        why = "rotation_cancelled"
        api_keys.delete(tx, row["id"], actor="keyturn", why=why, policy=scene.policy)


def _sealed_then(statement: str) -> Callable[[Scene], None]:
    """Something that is done to the audit after all of it was sealed."""

    def seal(scene: Scene) -> bool:
        while not scene.database.run(lambda tx: audit_seal.step(tx, scene.policy)).finished:
            pass
        [row] = scene.sql("SELECT sum(entries) AS sealed FROM keyturn.audit_seals")
        return bool(scene.sql("SELECT FROM keyturn.audit HAVING count(*) = :n", n=row["sealed"]))

    def done(scene: Scene) -> None:
        eventually(lambda: seal(scene))
        apply(scene, statement)

    return done


def _of(email: str) -> str:
    return f"account_id = (SELECT id FROM keyturn.accounts WHERE email = '{email}')"


def _rotations(name: str, assignment: str) -> str:
    return f"UPDATE keyturn.rotations SET {assignment} WHERE {old(name)}"


def _operation(assignment: str) -> str:
    """The operation is under way, and has not moved for a while."""
    return f"""
        UPDATE keyturn.operations
        SET state = 'running', ended_at = NULL, turn_at = :now - interval '301 s', {assignment}
    """


BREAKS: Final[Mapping[str, Mapping[str, Break]]] = {
    "no_use_after_stop": {
        "expired": use("expired", "expires_at + interval '61 s'"),
        "deleted": use("deleted", "deleted_at + interval '61 s'"),
        "account held": use("held", "created_at + interval '2 min'"),
        "tenant held": use("member", "created_at + interval '2 min'"),
        "key held": use("disabled", "created_at + interval '61 s'"),
        "held then": use("freed", "created_at + interval '61 s'"),
    },
    "status_is_true": {
        "not disabled": _revert("held"),
        "not disabled with its tenant": _revert("member"),
        "not restored elsewhere": _revert("left"),
        "not expired": _revert("expired"),
        "not retired": _revert("retired"),
        "not restored": f"""
            UPDATE keyturn.holds SET lifted_at = :now - interval '61 s' WHERE {_of(BOB)};
            UPDATE keyturn.accounts SET held = false WHERE email = '{BOB}'
        """,
    },
    "flags_agree": {
        "account held": f"UPDATE keyturn.accounts SET held = false WHERE email = '{BOB}'",
        "account free": f"UPDATE keyturn.accounts SET held = true WHERE email = '{CAROL}'",
        "tenant held": f"UPDATE keyturn.tenants SET held = false WHERE name = '{HELD}'",
        "tenant free": f"UPDATE keyturn.tenants SET held = true WHERE name = '{FREE}'",
        "key held": "UPDATE keyturn.api_keys SET held = false WHERE name = 'disabled'",
        "key free": "UPDATE keyturn.api_keys SET held = true WHERE name = 'freed'",
    },
    "nothing_early": {
        "audit": f"""
            UPDATE keyturn.audit SET at = at - interval '1 day'
            WHERE key_id = {key("expired")} AND after = 'expired'
        """,
        "status": f"""
            UPDATE keyturn.audit SET at = at + interval '200 days'
            WHERE key_id = {key("expired")} AND after = 'expired';
            UPDATE keyturn.api_keys SET expires_at = :now + interval '100 days'
            WHERE name = 'expired'
        """,
    },
    "audit_is_dense": {
        "version": "UPDATE keyturn.api_keys SET version = version + 1 WHERE name = 'unused'",
        "no entry": f"DELETE FROM keyturn.audit WHERE key_id = {key('unused')}",
        "status": f"UPDATE keyturn.audit SET after = 'disabled' WHERE key_id = {key('unused')}",
    },
    "stops_have_causes": {
        "no reason": f"""
            UPDATE keyturn.audit SET why = NULL WHERE key_id = {key("deleted")} AND version = 2
        """,
        "hold of an account": f"""
            DELETE FROM keyturn.audit WHERE action = 'hold.placed' AND {_of(BOB)}
        """,
        "hold of a tenant": f"""
            DELETE FROM keyturn.audit WHERE action = 'hold.placed'
            AND account_id = (SELECT id FROM keyturn.tenants WHERE name = '{HELD}')
        """,
        "hold of a key": f"""
            DELETE FROM keyturn.audit WHERE action = 'hold.placed' AND key_id = {key("disabled")}
        """,
        "rotation": f"""
            ALTER TABLE keyturn.rotations DROP CONSTRAINT ck_rotations_retired;
            {_rotations("retired", "retired_at = NULL")}
        """,
    },
    "events_finish": {
        "due": """
            UPDATE keyturn.inbox SET state = 'received',
                next_attempt_at = :now - interval '301 s' WHERE event_id = '4'
        """,
        "fails for ever": """
            UPDATE keyturn.inbox SET state = 'received', next_attempt_at = :now, attempts = 6,
                reason = 'failed: KeyError' WHERE event_id = '4'
        """,
        "unfinished": "UPDATE keyturn.inbox SET finished_at = NULL WHERE state = 'stale'",
        "waits for nothing": f"""
            INSERT INTO keyturn.account_identities
                (id, account_id, format, issuer, value, linked_at)
            SELECT gen_random_uuid(), id, 'email', '', 'nobody@example.com', :now
            FROM keyturn.accounts WHERE email = '{BOB}'
        """,
        "waits for no tenant": f"""
            INSERT INTO keyturn.tenant_identities (issuer, value, tenant_id, linked_at, linked_by)
            SELECT 'okta', 'nobody''s', id, :now, 'op' FROM keyturn.tenants WHERE name = '{FREE}'
        """,
    },
    "one_effect": {
        "hold of a tenant": f"""
            INSERT INTO keyturn.audit (at, actor, action, account_id, why)
            SELECT at, actor, action, account_id, why FROM keyturn.audit
            WHERE action = 'hold.placed'
              AND account_id = (SELECT id FROM keyturn.tenants WHERE name = '{HELD}')
        """,
        "key": """
            UPDATE keyturn.api_keys SET version = version + 1 WHERE name = 'unused';
            INSERT INTO keyturn.audit (at, actor, action, key_id, version, before, after)
            SELECT :now, 'keyturn', 'key.enabled', id, version, status, status
            FROM keyturn.api_keys WHERE name = 'unused'
        """,
        "hold": f"""
            INSERT INTO keyturn.audit (at, actor, action, account_id, why)
            SELECT at, actor, action, account_id, why FROM keyturn.audit
            WHERE action = 'hold.placed' AND {_of(BOB)}
        """,
    },
    "each_event_once": {
        "inbox": """
            INSERT INTO keyturn.inbox (source, provider, state, received_at, finished_at, action,
                certainty, raw_type, event_id, subject, next_attempt_at)
            SELECT source, provider, state, received_at, finished_at, action, certainty, raw_type,
                event_id, subject, next_attempt_at FROM keyturn.inbox WHERE event_id = '2'
        """,
    },
    "notices_complete": {
        "threshold": f"""
            DELETE FROM keyturn.notices WHERE key_id = {key("expired")} AND threshold_seconds > 0
        """,
        "end": f"""
            DELETE FROM keyturn.notices WHERE key_id = {key("expired")} AND threshold_seconds = 0
        """,
        "twice": f"""
            ALTER TABLE keyturn.notices
                DROP CONSTRAINT uq_notices_key_id_expires_at_threshold_seconds;
            INSERT INTO keyturn.notices SELECT gen_random_uuid(), key_id, account_id, expires_at,
                threshold_seconds, state, reason, planned_at, outbox_id
            FROM keyturn.notices WHERE key_id = {key("warned")}
        """,
        "never posted": f"""
            UPDATE keyturn.notices SET state = 'planned', outbox_id = NULL
            WHERE key_id = {key("warned")}
        """,
        "never marked": f"""
            UPDATE keyturn.notices SET state = 'planned' WHERE key_id = {key("warned")}
        """,
    },
    "outbox_drains": {
        "due": """
            UPDATE keyturn.outbox SET state = 'waiting', due_at = :now - interval '301 s'
            WHERE id = (SELECT id FROM keyturn.outbox WHERE channel = 'events' LIMIT 1)
        """,
    },
    "seals_match": {
        "entry changed": _sealed_then(
            "UPDATE keyturn.audit SET actor = 'somebody else' WHERE action = 'hold.lifted'"
        ),
        "entry deleted": _sealed_then(
            f"DELETE FROM keyturn.audit WHERE action = 'account.created' AND {_of(BOB)}"
        ),
        "entry inserted": _sealed_then(
            """
            INSERT INTO keyturn.audit (transaction_id, at, actor, action)
            SELECT min(transaction_id), :now, 'test', 'source.confirmed' FROM keyturn.audit
            """
        ),
        "seal changed": _sealed_then("UPDATE keyturn.audit_seals SET sealed_at = 'epoch'"),
    },
    "family_works": {"successor deleted": _delete_successor},
    "confirmed_before_stop": {
        "later": _rotations("retired", "confirmed_at = retired_at + interval '1 s'"),
        "never": _rotations("completed", "confirmed_at = NULL"),
        "by no use": f"""
            UPDATE keyturn.key_uses SET first_used_at = NULL WHERE key_id = (
                SELECT new_key_id FROM keyturn.rotations WHERE {old("draining")})
        """,
    },
    "one_open_rotation": {
        "two open": f"""
            DROP INDEX keyturn.uq_rotations_open_family;
            ALTER TABLE keyturn.rotations DISABLE TRIGGER rotation_moves;
            UPDATE keyturn.rotations SET state = 'issued', sealed_until = :now + interval '1 h',
                ended_at = NULL, cancel_reason = NULL
            WHERE state = 'cancelled' AND {old("twice")}
        """,
        "three keys": f"""
            {_rotation("draining", key("unused"))};
            UPDATE keyturn.api_keys SET family_id = {key("draining")} WHERE name = 'unused'
        """,
    },
    "one_successor": {
        "no rotation": f"""
            UPDATE keyturn.api_keys SET family_id = {key("completed")} WHERE name = 'unused'
        """,
        "two rotations": f"""
            ALTER TABLE keyturn.rotations DROP CONSTRAINT uq_rotations_new_key_id;
            {_rotation("draining", "new_key_id")}
        """,
        "reissued as nothing": f"""
            UPDATE keyturn.rotations SET reissued_as = gen_random_uuid()
            WHERE state = 'cancelled' AND {old("twice")}
        """,
    },
    "secrets_go": {
        "ended": f"""
            ALTER TABLE keyturn.rotations DROP CONSTRAINT ck_rotations_sealed_only_issued;
            {_rotations("completed", "sealed = 'x', sealed_kek = 1")}
        """,
        "claimed": _rotations("issued", "claimed_at = :now"),
    },
    "hand_overs_true": {
        "receipt of nothing": _rotations("sunk", "claimed_at = NULL, claimed_by = NULL"),
        "no receipt": "UPDATE keyturn.hand_overs SET receipt = NULL",
        "never delivered": """
            UPDATE keyturn.hand_overs SET state = 'skipped', delivered_at = NULL, receipt = NULL
        """,
        "too many tries": "UPDATE keyturn.hand_overs SET attempts = 7",
        "fails for no reason": "UPDATE keyturn.hand_overs SET state = 'failed'",
        "another sink": _rotations("sunk", "sink = 'elsewhere'"),
        "no hand-over": "DELETE FROM keyturn.hand_overs",
    },
    "hand_overs_advance": {
        "not tried": """
            UPDATE keyturn.hand_overs SET state = 'waiting', due_at = :now - interval '301 s'
        """,
        "never tried again": """
            UPDATE keyturn.hand_overs SET state = 'waiting', due_at = :now + interval '25 h'
        """,
    },
    "scheduled_start": {
        "not looked at": f"""
            INSERT INTO keyturn.rotation_schedule (key_id, policy, rotate_at, next_at)
            SELECT id, 'default', :now - interval '1 h', :now - interval '6 min'
            FROM keyturn.api_keys WHERE id = {key("active")}
        """,
    },
    "operations_advance": {
        "stands still": _operation("waits_for = NULL"),
        "waits for no key": _operation("waits_for = 'retries'"),
        "waits for no sink": _operation("waits_for = 'hand_overs'"),
    },
    "operation_keys_once": {
        "twice": f"""
            ALTER TABLE keyturn.operation_keys
                DROP CONSTRAINT uq_operation_keys_key_id_operation_id;
            INSERT INTO keyturn.operation_keys (operation_id, place, wave, key_id, account_id,
                state, rotation_id, next_attempt_at, told)
            SELECT operation_id, place + 9, wave, key_id, account_id, state, rotation_id,
                next_attempt_at, told
            FROM keyturn.operation_keys WHERE key_id = {key("bulk")}
        """,
        "not its rotation": _rotations("bulk", "operation_id = NULL"),
    },
    "operation_owners_told": {
        "not told": f"""
            UPDATE keyturn.operation_keys SET told = false WHERE key_id = {key("bulk")}
        """,
    },
    "compromised_stays_stopped": {
        "freed": f"""
            UPDATE keyturn.holds SET kind = 'disabled' WHERE key_id = {key("known")};
            UPDATE keyturn.audit SET why = replace(why, '/compromised', '/disabled')
            WHERE key_id = {key("known")} AND action = 'hold.placed'
        """,
    },
    "compromises_followed": {
        "forgotten": f"""
            UPDATE keyturn.compromises SET state = 'open', next_attempt_at = :now - interval '301 s'
            WHERE key_id = {key("known")}
        """,
        "no rotation": f"""
            UPDATE keyturn.compromises SET rotation_id = NULL WHERE key_id = {key("known")}
        """,
    },
    "compromised_proves_nothing": {
        "claimed": f"""
            INSERT INTO keyturn.audit (at, actor, action, account_id, key_id, why)
            SELECT reported_at + interval '61 s', 'holder', 'rotation.claimed', account_id, key_id,
                'by the holder of the old key' FROM keyturn.compromises
            WHERE key_id = {key("known")}
        """,
    },
    "rotations_advance": {
        "retire": _rotations("draining", "retire_at = :now - interval '301 s'"),
        "delete": _rotations("retired", "undo_until = :now - interval '301 s'"),
        "decide": _rotations("blocked", "blocked_reason = NULL"),
    },
}
