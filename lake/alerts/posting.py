"""Post a message to a webhook, and decide when to try again."""

import hashlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, Final

from lake.alerts.book import Message

_SILENCE_SECONDS: Final = 5.0  # of one read or write
_DEADLINE_SECONDS: Final = 10.0  # of the whole post, including name lookup and an answer that trickles in
_FIRST_PAUSE: Final = timedelta(seconds=10)
_LONGEST_PAUSE: Final = timedelta(minutes=10)
_ABOUT_THE_BODY: Final = frozenset({400, 409, 413, 414, 415, 422})  # any other status is about the webhook
_ANSWER_BYTES: Final = 200


@dataclass(frozen=True)
class Fault:
    """Why a post failed. `refused`: the webhook won't take this body, but may take others."""

    reason: str
    refused: bool = False


def post(webhook: str, body: Mapping[str, Any], key: str) -> Fault | None:
    """Post a JSON body with an `Idempotency-Key`; return why it failed, None if the webhook took it.

    The post ends after 10 s at the latest. A later answer is ignored: the message is posted again.
    """
    outcome: list[Fault | None] = []
    thread = threading.Thread(target=lambda: outcome.append(_posted(webhook, body, key)), daemon=True)
    thread.start()
    thread.join(_DEADLINE_SECONDS)
    return outcome[0] if outcome else Fault(f"no answer within {_DEADLINE_SECONDS:.0f} s")


def address(webhook: str) -> str:
    """Return a digest that identifies a webhook without revealing its URL, which may hold a secret."""
    return hashlib.sha256(webhook.encode()).hexdigest()[:12]


def is_due(message: Message, webhook: str, now: datetime) -> bool:
    """Return whether to try a message now: never tried, tried at another webhook, or the wait (10 s, 20 s... 10 min) is over.

    A last attempt in the future means that the clock was set back since: the message is due.
    """
    if message.tried is None or message.to != address(webhook):
        return True
    since = now - datetime.fromisoformat(message.tried)
    pause = min(_FIRST_PAUSE * 2 ** min(message.attempts - 1, 10), _LONGEST_PAUSE)
    return not timedelta(0) <= since < pause


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET that delivers nothing and succeeds."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Refuse to follow a redirect."""


def _posted(webhook: str, body: Mapping[str, Any], key: str) -> Fault | None:
    if not webhook.startswith(("http://", "https://")):
        return Fault("the webhook is no http:// or https:// address")
    try:
        data = json.dumps(body, allow_nan=False, default=str).encode()
        request = urllib.request.Request(webhook, data, {"Content-Type": "application/json", "Idempotency-Key": key})
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=_SILENCE_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return Fault(f"status {error.code} {error.reason}{_answer(error)}", error.code in _ABOUT_THE_BODY)
    except urllib.error.URLError as error:
        return Fault(str(error.reason))
    except (OSError, HTTPException) as error:
        return Fault(str(error) or type(error).__name__)
    except ValueError as error:
        # the URL is invalid, or the body holds a NaN (json.dumps); trying again would not help
        return Fault(str(error).replace(webhook, "the webhook"), refused=True)


def _answer(error: urllib.error.HTTPError) -> str:
    """Return the text of the webhook's answer, such as Slack's `no_text`."""
    try:
        said = error.read(_ANSWER_BYTES).decode("utf-8", "replace")
    except (OSError, HTTPException):
        return ""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in said).split())
    return f": {line}" if line else ""
