"""Whatever is done to a sealed audit is found, and named; a cut end by an anchor."""

import re

import pytest

from models.audit_verify import Anchor
from models.errors import Refused
from tests.models.chain import Chain

ENTRY = "id = 5"  # of seal 2
TAMPERING = {
    "changed": (
        f"UPDATE keyturn.audit SET actor = 'somebody else' WHERE {ENTRY}",
        [("entry_changed", 2)],
        r"seal 2 of .* \(transactions \d+ to \d+, entries 4 to 6\) .* at least one was changed",
    ),
    "emptied": (
        f"UPDATE keyturn.audit SET why = '' WHERE {ENTRY}",
        [("entry_changed", 2)],
        "at least one was changed",
    ),
    "moved within a text": (
        "UPDATE keyturn.audit SET actor = 'tes', action = 't' || action WHERE id = 5",
        [("entry_changed", 2)],
        "at least one was changed",
    ),
    "redated": (
        f"UPDATE keyturn.audit SET at = at - interval '1 microsecond' WHERE {ENTRY}",
        [("entry_changed", 2)],
        "at least one was changed",
    ),
    "deleted": (
        f"DELETE FROM keyturn.audit WHERE {ENTRY}",
        [("entry_deleted", 2)],
        r"has 2 entries where 3 were sealed: at least 1 was removed",
    ),
    "inserted": (
        """
        INSERT INTO keyturn.audit (transaction_id, at, actor, action)
        SELECT transaction_id, at, actor, 'forged' FROM keyturn.audit WHERE id = 5
        """,
        [("entry_inserted", 2)],
        r"has 4 entries where 3 were sealed: at least 1 was added",
    ),
    "replaced": (
        """
        INSERT INTO keyturn.audit (transaction_id, at, actor, action)
        SELECT transaction_id, at, actor, 'forged' FROM keyturn.audit WHERE id = 5;
        DELETE FROM keyturn.audit WHERE id = 5
        """,
        [("entry_changed", 2)],
        "as many entries as were sealed, but not the same",
    ),
    "reordered": (
        """
        UPDATE keyturn.audit SET transaction_id = (
            SELECT sum(transaction_id) FROM keyturn.audit WHERE id IN (4, 5)) - transaction_id
        WHERE id IN (4, 5)
        """,
        [("entry_changed", 2)],
        "at least one was changed",
    ),
    "moved to another seal": (
        """
        UPDATE keyturn.audit SET transaction_id = (
            SELECT transaction_id FROM keyturn.audit WHERE id = 9) WHERE id = 5
        """,
        [("entry_deleted", 2), ("entry_inserted", 3)],
        "at least 1 was removed",
    ),
    "moved out of the chain": (
        "UPDATE keyturn.audit SET transaction_id = -1 WHERE id = 5",
        [("entry_deleted", 2), ("entry_misplaced", None)],
        "1 entries carry transaction ids .*: 5$",
    ),
    "moved into the future": (
        "UPDATE keyturn.audit SET transaction_id = 9000000000000000000 WHERE id = 5",
        [("entry_deleted", 2), ("entry_misplaced", None)],
        ": 5$",
    ),
    "a seal's time changed": (
        "UPDATE keyturn.audit_seals SET sealed_at = now() + interval '1 h' WHERE number = 2",
        [("seal_changed", 2)],
        "seal 2 .* is not what was computed when it was made: it or seal 1 was changed",
    ),
    "a seal's hash changed": (
        "UPDATE keyturn.audit_seals SET hash = sha256('x') WHERE number = 2",
        [("seal_changed", 2), ("seal_changed", 3)],
        "it or seal 2 was changed",
    ),
    "the first seal changed": (
        "UPDATE keyturn.audit_seals SET cluster = 1 WHERE number = 1",
        [("seal_changed", 1)],
        "it was changed",
    ),
    "a seal removed": (
        "DELETE FROM keyturn.audit_seals WHERE number = 2",
        [("seal_missing", 2)],
        "seal 2 is missing",
    ),
    "the first seals removed": (
        "DELETE FROM keyturn.audit_seals WHERE number < 3",
        [("seal_missing", 1)],
        "seals 1 to 2 are missing",
    ),
    "a range made narrower": (
        "UPDATE keyturn.audit_seals SET from_transaction = from_transaction + 1 WHERE number = 2",
        [("seal_changed", 2), ("entry_deleted", 2)],
        "seal 2",
    ),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_what_was_done_to_the_audit_is_named(sealed: Chain, how: str) -> None:
    statements, expected, message = TAMPERING[how]
    sealed.tamper(statements)
    assert sealed.problems() == expected
    assert any(re.search(message, one.message) for one in sealed.verify().problems)


def test_tampering_is_found_after_more_was_sealed(sealed: Chain) -> None:
    sealed.tamper(f"DELETE FROM keyturn.audit WHERE {ENTRY}")
    sealed.write("and on it goes")
    sealed.seal_all()
    assert sealed.problems() == [("entry_deleted", 2)]


def test_a_seal_that_was_computed_anew_does_not_fit_the_next_one(sealed: Chain) -> None:
    sealed.tamper(
        f"""
        CREATE TABLE kept AS SELECT * FROM keyturn.audit_seals WHERE number = 3;
        UPDATE keyturn.audit SET actor = 'somebody else' WHERE {ENTRY};
        DELETE FROM keyturn.audit_seals WHERE number >= 2
        """
    )
    sealed.seal_all()
    sealed.tamper(
        """
        DELETE FROM keyturn.audit_seals WHERE number = 3;
        INSERT INTO keyturn.audit_seals SELECT * FROM kept
        """
    )
    assert sealed.problems() == [("seal_changed", 3)]
    [problem] = sealed.verify().problems
    assert "it or seal 2 was changed" in problem.message


@pytest.mark.parametrize("last", [1, 10])
def test_a_cut_end_is_found_by_an_anchor_alone(sealed: Chain, last: int) -> None:
    sealed.write(*(f"late {n}" for n in range(12)))
    sealed.seal_all()
    anchor = sealed.anchor()
    assert (anchor.seal, anchor.entries) == (7, 21)
    assert sealed.problems(anchor) == []
    sealed.tamper(
        f"""
        DELETE FROM keyturn.audit_seals WHERE last_id > 21 - {last};
        DELETE FROM keyturn.audit WHERE id > 21 - {last}
        """
    )
    assert sealed.problems() == []
    assert sealed.problems(anchor) == [("tail_truncated", 7)]
    [problem] = sealed.verify(anchor).problems
    assert re.search(r"the anchor is of seal 7 .*, but the last seal is \d:", problem.message)
    sealed.seal_all()
    sealed.write(*(f"forged {n}" for n in range(2 * last)))
    sealed.seal_all()
    assert sealed.problems() == []
    assert sealed.problems(anchor) == [("anchor_differs", 7)]


def test_a_chain_that_was_sealed_anew_is_found_by_an_anchor_alone(sealed: Chain) -> None:
    anchor = sealed.anchor()
    sealed.tamper(f"DELETE FROM keyturn.audit_seals; DELETE FROM keyturn.audit WHERE {ENTRY}")
    assert sealed.problems(anchor) == [("tail_truncated", 3)]
    sealed.seal_all()
    assert sealed.problems() == []
    assert sealed.problems(anchor) == [("anchor_differs", 3)]
    [problem] = sealed.verify(anchor).problems
    assert "sealed anew" in problem.message


def test_an_anchor_holds_while_the_chain_goes_on(sealed: Chain) -> None:
    anchor = sealed.anchor()
    sealed.write(*(f"late {n}" for n in range(5)))
    sealed.seal_all()
    assert sealed.problems(anchor) == []
    assert sealed.problems(anchor.model_copy(update={"hash": "0" * 64})) == [("anchor_differs", 3)]


def test_an_anchor_survives_being_written_down(sealed: Chain) -> None:
    anchor = sealed.anchor()
    assert Anchor.parse(anchor.model_dump_json()) == anchor


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "the document"),
        ("[]", "the document"),
        ("{}", "seal"),
        ('{"seal": 0}', "seal"),
        ('{"seal": "1", "hash": "x", "sealed_at": "x", "entries": 1}', "seal"),
        ('{"seal": 1, "hash": "%s", "entries": 1}' % ("F" * 64), "hash"),
        ('{"seal": 1, "hash": "%s\\n", "entries": 1}' % ("f" * 64), "hash"),
        ('{"seal": 1, "hash": "%s", "sealed_at": "2026-01-01T00:00:00"}' % ("f" * 64), "sealed_at"),
        (b"\xff\xfe", "the document"),
    ],
)
def test_what_is_no_anchor_is_refused(text: str | bytes, where: str) -> None:
    with pytest.raises(Refused, match=f"this is no anchor: {where}: ") as refusal:
        Anchor.parse(text)
    assert refusal.value.code == "anchor_unreadable"
