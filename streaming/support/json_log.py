"""Logs as one JSON object a line, for programs that collect them."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

__all__ = ["JsonFormatter"]


class JsonFormatter(logging.Formatter):
    """``time`` (ISO 8601), ``level``, ``logger``, ``message`` and, with a traceback, ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON on one line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        fields = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields)
