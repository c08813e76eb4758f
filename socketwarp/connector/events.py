"""
What the connector's log has by name: each event with its level and its sentence, its fields as the listener's are
called. docs/operations.rst has the table.
"""

from collections.abc import Mapping

from twisted.logger import Logger, LogLevel

#: Every event: its level in the log and the sentence made of its fields.
EVENTS: Mapping[str, tuple[LogLevel, str]] = {
    "session.connected": (
        LogLevel.info,
        "{listener}: connected to {peer} by {protocol} over {carrier}, session {session} (uid: {uid})",
    ),
    "session.silent": (LogLevel.warn, "{listener}: no answer in session {session}; trying another one"),
    "session.lost": (LogLevel.info, "{listener}: session {session} lost after {seconds} s: {reason}"),
    "session.waiting": (LogLevel.warn, "{listener}: {reason}; next attempt in {delay:.1f} s"),
    "attempt.failed": (LogLevel.info, "{way}: {reason}"),
    "carrier.blocked": (LogLevel.info, "{listener}: quic doesn't get through: {reason}; next try in {delay:.0f} s"),
    "carrier.distrusted": (
        LogLevel.warn,
        "{listener}: sessions by quic fall silent after a short life; tls is tried first from now on",
    ),
    "carrier.held": (LogLevel.info, "{listener}: quic gets through; changing over to it"),
    "stream.refused": (LogLevel.warn, "session {session}: no connection for a stream: {reason} ({code})"),
    "connection.ended": (
        LogLevel.info,
        "connection {connection} to {target} ended after {seconds} s, {bytes_in} bytes in, {bytes_out} out: {reason} "
        "(visitor: {peer}, port: {port}, uid: {uid}, session: {session})",
    ),
    "events.suppressed": (
        LogLevel.info,
        "{count} more ends and refusals of connections were not told one by one",
    ),
}


def tell(log: Logger, name: str, **fields: str | float | None) -> None:
    """
    Log an event.

    :raises KeyError: when `EVENTS` has no such name.
    """
    level, sentence = EVENTS[name]
    log.emit(level, sentence, event=name, **fields)
