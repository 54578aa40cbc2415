"""The ways out: each sends what the outbox holds, and answers for every single message."""

from collections.abc import Mapping

from models.messages import Channel
from models.outbox import EVENTS, MAIL
from worker.settings import Settings

from .exchange import Exchange
from .maildir import Maildir
from .off import Off
from .smtp import Smtp, SmtpServer
from .stream import Stream

__all__ = ["Exchange", "Maildir", "Off", "Smtp", "SmtpServer", "Stream", "make_channels"]


def make_channels(settings: Settings) -> Mapping[str, Channel]:
    """The channels by the names that the outbox gives them. Opens no connection.

    Events leave by a stream, or by an exchange where the broker is RabbitMQ and no other server is
    named for streams.
    """
    return {MAIL: _mail(settings), EVENTS: _events(settings)}


def _mail(settings: Settings) -> Channel:
    if settings.mail_channel == "none":
        return Off("mail is switched off: set KEYTURN_MAIL_CHANNEL to smtp or maildir")
    if settings.mail_channel == "maildir":
        return Maildir(settings.maildir_path, settings.mail_from)
    server = SmtpServer.from_url(settings.smtp_url or "", starttls=settings.smtp_starttls)
    return Smtp(server, settings.mail_from, batch_time=_batch_time(settings))


def _events(settings: Settings) -> Channel:
    if not settings.has_streams:
        return Exchange(
            settings.broker_url, source=settings.event_source, batch_time=_batch_time(settings)
        )
    return Stream(
        settings.stream_url,
        stream=settings.out_stream,
        source=settings.event_source,
        maxlen=settings.out_maxlen,
    )


def _batch_time(settings: Settings) -> float:
    """Seconds after which a batch starts nothing more: what is left of its lease is for the rest.

    A worker that is slower than its lease would send what another one has taken over.
    """
    return settings.lease.total_seconds() / 2
