"""Log lines with fields. Whoever logs passes `extra={"saga.id": …}`; what a line looks like is decided here."""

import json
import logging
import sys
from datetime import UTC, datetime
from textwrap import indent
from typing import Final, Literal, TextIO, assert_never

from coordinator.telemetry import names

LogFormat = Literal["json", "text"]

OWN_LOGGERS: Final = ("coordinator", "participant_sdk")

_RECORD_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""What every record has; the rest came through `extra`."""


def configure_logging(level: str, log_format: LogFormat, *, stream: TextIO | None = None) -> None:
    """Sends the lines of this process to `stream`, by default standard error. Called again, it replaces what it set before.

    `level` holds for our own loggers. Libraries are heard from WARNING on: at DEBUG the database driver writes every parameter, and with
    them the payloads of sagas; at INFO the migrations tell their whole life at every start.

    Raises ValueError for a level that is none of Python's.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"expected a log level such as info or debug, found {level!r}")
    handler = _LineHandler(stream or sys.stderr)
    match log_format:
        case "json":
            handler.setFormatter(JsonFormatter())
        case "text":
            handler.setFormatter(TextFormatter())
        case _:
            assert_never(log_format)
    root = logging.getLogger()
    root.setLevel(max(number, logging.WARNING))
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(number)
    for old in [old for old in root.handlers if isinstance(old, _LineHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ts (RFC 3339, UTC), level, logger, message, every field of `extra`, and exception with its traceback.

    Everything outside ASCII is escaped, so that a line stays JSON whatever the encoding of the stream. Values that JSON does not know are
    shown as text.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            names.LOG_TIME: _instant_of(record),
            names.LOG_LEVEL: record.levelname,
            names.LOG_LOGGER: record.name,
            names.LOG_MESSAGE: record.getMessage(),
            **_fields_of(record),
        }
        exception = _exception_of(self, record)
        if exception:
            line[names.LOG_EXCEPTION] = exception
        return json.dumps(line, default=str, skipkeys=True)


class TextFormatter(logging.Formatter):
    """One line for eyes, with the fields behind the message; the traceback of an exception follows, indented.

    Messages carry words of participants and callers: control characters are escaped, and what follows is indented, so that none of them
    can forge a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={_shown(value)}" for key, value in _fields_of(record).items())
        message = _escaped(record.getMessage())
        line = f"{_instant_of(record)} {record.levelname:<7} {record.name}: {message}{fields}"
        exception = _exception_of(self, record)
        return f"{line}\n{indent(exception, '    ')}" if exception else line


class _LineHandler(logging.StreamHandler[TextIO]):
    """A type of our own, to find it again."""


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in record.__dict__.items() if key not in _RECORD_FIELDS}


def _exception_of(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _instant_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shown(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text and '"' not in text else json.dumps(text)


def _escaped(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
