"""Rotations that nobody asked for one by one: of keys that others know, by plan, by policy."""

import copy
from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from models.errors import Refused
from models.operations import Selection
from tests.model.compared import EMAILS, SCHEDULE, Index, pick
from tests.model.facts import DAY
from tests.model.handover import No
from tests.model.key_steps import MOST_KEYS, WithKeys
from tests.model.schedule import LOOKED_AT_AGAIN, SCHEDULED, must_have_started

VERBS = ("apply", "apply", "pause", "resume", "cancel")


class WithNewKeys(WithKeys):
    """Commands on keys that others know, and on plans; the schedule's day."""

    def __init__(self) -> None:
        super().__init__()
        self.plan_ids: list[str] = []

    @precondition(lambda self: self.texts)
    @rule(which=Index, replaces=st.booleans())
    def stop_compromised(self, which: int, replaces: bool) -> None:
        """An operator hears that others know a key."""
        working = [key for key in self.model.keys if self.model.works(key)]
        key = pick(working or self.model.keys, which)
        name = self.texts[key.number][0]

        def modelled() -> bool:
            if key.deleted:
                raise No("deleted")
            return self.model.compromises.stop(key, "operator", issue=True)

        done = self._both(lambda: self.real.operator.stop_compromised(name), modelled)
        if done:
            assert done[0] == done[1]
            if replaces:
                self.replace_compromised(key.number)

    @precondition(lambda self: self.model.compromises.found)
    @rule(which=Index)
    def fetch_compromised(self, which: int) -> None:
        """They ask for its successor, perhaps once more."""
        self.replace_compromised(pick(list(self.model.compromises.found), which))

    def replace_compromised(self, number: int) -> None:
        """What follows the hold stays done where there is no text to be had any more."""
        before, rotation = copy.deepcopy(self.model), None
        try:
            self.model.compromises.follow(self.model.keys[number])
            rotation = self.model.compromises.fetch(self.model.keys[number])
        except No as no:
            if str(no) == "held":
                self.model = before
        got, code = None, ""
        try:
            got = self.real.operator.replace_compromised(self.texts[number][0])
        except Refused as refused:
            code = refused.code
        self.adopt()
        assert (got is None) == (rotation is None), code or "handed over what is not there"
        if got is not None and rotation is not None:
            assert got.rotation.id == self.rotation_ids[rotation.number]
            self._learn(rotation.new, got.rotation.new_key_id, got.secret.reveal())

    @precondition(lambda self: self.texts)
    @rule(then=st.sampled_from(["", "apply", "carry out", "carry out"]), fresh=st.booleans())
    def plan(self, then: str, fresh: bool) -> None:
        """Every key that fits, and why the others do not; it may be applied at once."""
        self._fresh("viewer", fresh)
        made = self.real.operator.operations.plan(Selection(everything=True))
        modelled = self.model.plans.plan()
        assert (made.keys, dict(made.left_out)) == (len(modelled.keys), dict(modelled.left_out))
        self.plan_ids.append(str(made.id))
        if then:
            self.on_plan(len(self.plan_ids) - 1, "apply", then == "carry out")

    @precondition(lambda self: self.plan_ids)
    @rule(which=Index, verb=st.sampled_from(VERBS), carried_out=st.booleans())
    def on_plan(self, which: int, verb: str, carried_out: bool) -> None:
        number = which % len(self.plan_ids)
        operations = self.real.operator.operations
        why = ["why"] if verb == "cancel" else []

        def model() -> None:
            if not self.model.plans.made[number].known:
                raise No("unknown")
            getattr(self.model.plans, verb)(self.model.plans.made[number])

        self._both(lambda: getattr(operations, verb)(self.plan_ids[number], *why), model)
        if carried_out:
            self.run("operations.advance")

    def _fresh(self, role: str, wanted: bool = True) -> None:
        """A key that is in no rotation yet, where there are not many."""
        if wanted and len(self.texts) < MOST_KEYS:
            self.create_key(EMAILS[0], 90 * DAY, None, role)

    @precondition(lambda self: any(key.role == SCHEDULED for key in self.model.keys))
    @rule(by=st.sampled_from([timedelta(0), 15 * DAY, 45 * DAY]), fresh=st.booleans())
    def a_day_of_the_schedule(self, by: timedelta, fresh: bool) -> None:
        """It looks at every key at least once a day: then nobody is left out."""
        self._fresh(SCHEDULED, fresh)
        self.move_to(self.model.now + by)
        self.run(SCHEDULE)
        self.move_to(self.model.now + LOOKED_AT_AGAIN + timedelta(hours=1))
        self.run(SCHEDULE)
        assert not [key.number for key in self.model.keys if must_have_started(self.model, key)]
