"""Events for other systems on a stream of Redis or Valkey, as CloudEvents in JSON."""

from collections.abc import Sequence
from uuid import UUID

from redis import RedisError
from redis.client import Pipeline
from redis.typing import EncodableT, FieldT

from models.messages import Delivery, Outgoing
from worker.streams import TIMEOUT, connect

from .cloud_event import cloud_event
from .messages import one_line


class Stream:
    """Appends each message to `stream` as one entry with the field `event`.

    The stream keeps about `maxlen` of the newest entries. `sent` means that the server has it.
    Where its answer got lost the event may come twice, with one CloudEvents id.
    """

    def __init__(
        self,
        url: str,
        *,
        stream: str = "keyturn:out",
        source: str = "keyturn",
        maxlen: int = 100_000,
        timeout: float = TIMEOUT,
    ) -> None:
        self._stream = stream
        self._source = source
        self._maxlen = maxlen
        self._redis = connect(url, timeout)

    def send(self, messages: Sequence[Outgoing]) -> Sequence[Delivery]:
        failed: dict[UUID, Delivery] = {}
        pipeline = self._redis.pipeline(transaction=False)
        appended = []
        for message in messages:
            try:
                entry: dict[FieldT, EncodableT] = {"event": cloud_event(message, self._source)}
            except (TypeError, ValueError) as error:
                why = f"cannot be made an event: {one_line(error)}"
                failed[message.id] = Delivery(id=message.id, state="failed", error=why)
                continue
            pipeline.xadd(self._stream, entry, maxlen=self._maxlen, approximate=True)
            appended.append(message.id)
        answers = dict(zip(appended, self._answers(pipeline, len(appended)), strict=True))
        return [failed.get(m.id) or _delivery(m.id, answers[m.id]) for m in messages]

    def _answers(self, pipeline: Pipeline, expected: int) -> list[object]:
        """The answer to each command; an exception stands for one that failed or got lost."""
        try:
            return list(pipeline.execute(raise_on_error=False))
        except RedisError as error:
            return [error] * expected


def _delivery(message_id: UUID, answer: object) -> Delivery:
    if not isinstance(answer, Exception):
        return Delivery(id=message_id, state="sent")
    # Nothing that the server refuses is the message's fault: it is full, or set up differently.
    why = f"the stream did not take it: {one_line(answer) or type(answer).__name__}"
    return Delivery(id=message_id, state="retry", error=why)
