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
    return Smtp(server, settings.mail_from)


def _events(settings: Settings) -> Channel:
    if not settings.has_streams:
        return Exchange(settings.broker_url, source=settings.event_source)
    return Stream(
        settings.stream_url,
        stream=settings.out_stream,
        source=settings.event_source,
        maxlen=settings.out_maxlen,
    )
