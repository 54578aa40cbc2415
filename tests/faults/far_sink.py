"""Where new keys go in the matrix: an outside that counts what it is given, and keeps the last."""

from collections import Counter
from uuid import UUID

from models.key_text import Secret
from models.sinks import HandOver, Outcome, Told
from tests.faults.points import CALL, Points

Given = tuple[UUID, str]
"""A rotation, and the text that came for it; empty where it was promoted."""


class FarSink:
    """Takes each key, or refuses it for good; with `tells` a message goes with the receipt."""

    def __init__(self, points: Points, *, refuses: bool = False, tells: bool = False) -> None:
        self._points = points
        self._refuses = refuses
        self._tells = tells
        self.taken: Counter[Given] = Counter()
        self.messages: dict[UUID, str] = {}

    def deliver(self, hand_over: HandOver, secret: Secret) -> Outcome:
        self._call((hand_over.rotation_id, secret.reveal()))
        if self._refuses:
            return Outcome(state="failed", error="this shelf takes nothing")
        payload = {"key_ids": [str(hand_over.key_id)]}
        told = [Told(channel="events", kind="key.sealed", payload=payload)] if self._tells else []
        return Outcome(state="taken", receipt="on the shelf", messages=told)

    def _call(self, given: Given) -> None:
        self._points.before(CALL, "sink")
        self.take(given)
        self._points.after()

    def take(self, given: Given) -> None:
        """Here it is."""
        self.taken[given] += 1
        rotation_id, text = given
        self.messages[rotation_id] = text or f"{self.messages[rotation_id]}, in front"


class PromotingSink(FarSink):
    """Puts a key in front once its rotation is confirmed."""

    def promote(self, hand_over: HandOver) -> Outcome:
        self._call((hand_over.rotation_id, ""))
        return Outcome(state="taken", receipt="in front")

    def take(self, given: Given) -> None:
        """In front is in front, however often it is said."""
        if given[1] or "," not in self.messages[given[0]]:
            super().take(given)
        else:
            self.taken[given] += 1


def sinks(points: Points) -> dict[str, FarSink]:
    """One of each behaviour, by the name by which policies choose it."""
    return {
        "shelf": FarSink(points),
        "teller": FarSink(points, tells=True),
        "wall": FarSink(points, refuses=True),
        "cabinet": PromotingSink(points),
    }
