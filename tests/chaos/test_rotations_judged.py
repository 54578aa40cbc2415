"""The ledger finds rotations that ended otherwise, and keys that were handed over wrong."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from models.key_text import Secret, mint
from models.sinks import HandOver
from tests.chaos.delivery import message
from tests.chaos.guard import Guard
from tests.chaos.ledger import LEAKED, Account, Event, Evidence, Ledger, Posted, Told
from tests.chaos.load import Story
from tests.chaos.rotation_stories import ROTATIONS, awaited
from tests.chaos.sinks import MOODS, ROLES, Found, Sinks, found
from tests.chaos.stories import STORIES
from tests.eventually import eventually
from worker.settings import load_settings
from worker.sinks.program import Program

ADA = "ada@chaos.example"
FILE = Path("/mount/family")
WELL = Evidence(
    inbox=[],
    keys=[],
    causes={},
    rotations={ADA: ["completed"]},
    valid={"old": False, "new": True},
    files={FILE: Found(0o600, "new")},
)


def judged(evidence: Evidence, **changed: object) -> list[str]:
    """What is wrong for an account whose key was rotated into a file."""
    account = Account(ADA, "mount", texts=["old", "new"], rotations=("completed",))
    account.end.update(old="deleted", new="active")
    account.files[FILE] = "new"
    for name, value in changed.items():
        setattr(account, name, value)
    ledger = Ledger()
    ledger.open(account)
    return ledger.judge(evidence).unmet


def test_all_is_well() -> None:
    assert judged(WELL) == []


@pytest.mark.parametrize(
    ("states", "end"),
    [
        ([], ("completed",)),
        (["draining"], ("completed",)),
        (["completed", "issued"], ("completed",)),
        (["completed"], ()),
        (["completed", "completed"], ("cancelled", "completed")),
    ],
)
def test_a_rotation_too_few_too_many_or_with_another_end(
    states: Sequence[str], end: Sequence[str]
) -> None:
    [wrong] = judged(replace(WELL, rotations={ADA: states}), rotations=end)
    assert wrong.startswith(f"wrong: {ADA} (mount): rotations ")


def test_rotations_end_in_any_order() -> None:
    states = {ADA: ["completed", "cancelled"]}
    assert judged(replace(WELL, rotations=states), rotations=("cancelled", "completed")) == []


def test_an_old_key_that_works_on_and_a_new_one_that_does_not() -> None:
    wrong = judged(replace(WELL, valid={"old": True, "new": False}))
    assert wrong == [
        f"wrong: {ADA} (mount): verify accepts a key that is deleted",
        f"wrong: {ADA} (mount): verify refuses a key that is active",
    ]


@pytest.mark.parametrize(
    ("file", "wrong"),
    [
        (None, "lost: {} is not there"),
        (Found(0o644, "new"), "wrong: {} has mode 644"),
        (Found(0o600, "old"), "wrong: {} has another key than the one that was handed over"),
    ],
)
def test_a_file_that_is_gone_open_or_another(file: Found | None, wrong: str) -> None:
    name = f"{ADA} (mount): family"
    assert judged(replace(WELL, files={FILE: file})) == [wrong.format(name)]


def test_a_key_that_was_sealed_and_told_twice() -> None:
    once = Told("1", "key.sealed", ("k",), 1.0, sealed="box")
    assert judged(replace(WELL, told=[once, replace(once, at=2.0)])) == []
    assert judged(replace(WELL, told=[once, replace(once, id="2")])) == [
        "doubled: key.sealed of k: 2 events"
    ]


def test_as_many_mails_of_a_subject_as_there_are_rotations() -> None:
    posted = [Posted(f"<{n}@x>", ADA, "Your key is being rotated", 1.0) for n in range(2)]
    assert judged(replace(WELL, posted=posted), mails=2) == []
    assert len(judged(replace(WELL, posted=posted))) == 1


def test_a_report_of_a_key_names_no_account() -> None:
    event = Event("e1", ADA, LEAKED, digest="ab")
    assert message(event) == {"type": "key.leaked", "digest": "ab", "id": "e1"}


def test_who_has_no_key_that_works_is_locked_out() -> None:
    working, reports = {"old"}, list[str]()
    guard = Guard(working.__contains__, reports.append)
    family = guard.watch(ADA, "old")
    guard.look()
    family.append("new")
    working.symmetric_difference_update({"old", "new"})
    guard.look()
    assert reports == []
    working.clear()
    guard.look()
    guard.look()
    assert reports == [f"{ADA} is locked out: none of its 2 keys works"]
    assert guard.looks == 3


def test_a_successor_that_comes_between_two_questions_locks_nobody_out() -> None:
    family: list[str] = []

    def works(text: str) -> bool:
        family[1:] = ["new"]
        return text == "new"

    reports: list[str] = []
    guard = Guard(works, reports.append)
    family = guard.watch(ADA, "old")
    guard.look()
    assert reports == []


def test_no_answer_is_not_a_no() -> None:
    def works(text: str) -> bool:
        raise ConnectionError(text)

    reports, stop = list[str](), threading.Event()
    guard = Guard(works, reports.append)
    guard.watch(ADA, "old")
    thread = threading.Thread(target=guard.run, args=(stop,))
    thread.start()
    eventually(lambda: guard.looks > 0)
    stop.set()
    thread.join()
    assert reports == []


NEW = mint("kt")


def handed(account: str) -> HandOver:
    return HandOver(
        rotation_id=uuid4(),
        family_id=uuid4(),
        account_id=uuid4(),
        account=account,
        key_id=uuid4(),
        key_name="k",
        key_hint="abcd",
        expires_at=datetime.now(UTC),
        old_key_id=uuid4(),
        old_expires_at=datetime.now(UTC),
        public_key=None,
    )


@pytest.mark.parametrize("mood", MOODS)
def test_a_program_has_moods_and_takes_the_key_in_the_end(tmp_path: Path, mood: str) -> None:
    sinks = Sinks(tmp_path / "sinks")
    sinks.make()
    sinks.set_mood(ADA, mood)
    patience = 0.5 if mood == "hangs" else 30
    program = Program([str(sinks.place / "program"), str(sinks.place)], patience)
    one = handed(ADA)
    if mood != "takes":
        assert program.deliver(one, NEW).state == "retry"
        assert found(sinks.taken(one.rotation_id)) is None
    assert (
        Program([str(sinks.place / "program"), str(sinks.place)], 30)
        .deliver(one, Secret(NEW.reveal()))
        .state
        == "taken"
    )
    assert found(sinks.taken(one.rotation_id)) == Found(0o600, NEW.reveal())


def test_its_settings_are_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Sinks(tmp_path / "sinks").make()
    monkeypatch.setenv("KEYTURN_CONFIG", str(file))
    monkeypatch.setenv("KEYTURN_DATA_DIR", str(tmp_path))
    policies = load_settings().policy().rotation_policies
    assert set(policies) >= set(ROLES[1:-1])
    assert policies["reissued"].on_compromise == "hold_and_issue"
    assert policies["mounted"].sink == "mount"


def test_every_story_has_a_name_of_its_own() -> None:
    stories: tuple[Story, ...] = (*STORIES, *ROTATIONS)
    assert len({story.name for story in stories}) == len(stories)


def test_what_is_awaited_is_found_whatever_fails_before() -> None:
    answers = iter([ConnectionError(), None, [], ["found"]])

    def look() -> list[str] | None:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert awaited(look, "something", every=0) == ["found"]
