"""Faults of object stores: which are retried, how long, and messages without secrets."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from leukemia_data.errors import StorageError
from leukemia_data.stores.url import Url

HIDDEN = "***"

_SECRET_NAMES = re.compile(r"ACCESS_KEY|SECRET|TOKEN|PASSWORD|CONNECTION_STRING|ACCOUNT_KEY|CREDENTIAL", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]*:[^/\s@]*@")
_QUERY = re.compile(r"(?<=\w)\?[^\s'\"<>]*=[^\s'\"<>]*")
_NAMED_SECRET = re.compile(
    r"((?:access_?key(?:_?id)?|secret(?:_?access_?key)?|token|signature|password|account_?key)['\"]?\s*[:=]\s*['\"]?)"
    r"[^\s'\",;&)]+",
    re.IGNORECASE,
)
_SHORTEST = 6


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """Return the text with every credential hidden, values of such variables of the environment among them."""
    secrets = {value for name, value in environment.items() if _SECRET_NAMES.search(name) and len(value) >= _SHORTEST}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _USER_IN_URL.sub(f"{HIDDEN}@", text)
    text = _QUERY.sub(f"?{HIDDEN}", text)
    return _NAMED_SECRET.sub(rf"\1{HIDDEN}", text)


_TRANSIENT_STATUS = frozenset({408, 425, 429})
_TRANSIENT_CODES = frozenset(
    (
        *("BadDigest", "ConditionalRequestConflict", "IncompleteBody", "InternalError", "OperationAborted"),
        *("RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException"),
        "XAmzContentSHA256Mismatch",
    )
)
_TRANSIENT_KINDS = frozenset(
    (
        *("ClientConnectionError", "ClientPayloadError", "ConnectionError", "HTTPClientError", "IncompleteRead"),
        *("IncompleteReadError", "ResponseParserError", "ServiceRequestError", "ServiceResponseError"),
        # The content does not match the checksum that the server sent.
        *("FlexibleChecksumError", "TransportError"),
    )
)
_NO_CREDENTIALS_KINDS = frozenset(
    {"ClientAuthenticationError", "DefaultCredentialsError", "NoCredentialsError", "PartialCredentialsError"}
)
_HOW_TO_GIVE_CREDENTIALS = {
    "s3": "give them the way boto takes them, as by AWS_PROFILE, or by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "give them the way gcsfs takes them, as by GOOGLE_APPLICATION_CREDENTIALS",
    "az": "give them the way adlfs takes them, as by AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_FAMILY = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
_LONGEST = 300


class MissingObjectError(StorageError):
    """There is no object of this name, or no such bucket."""


class ConflictError(StorageError):
    """An object is no longer the one that was to be replaced."""


class ShortReadError(Exception):
    """Another number of bytes than requested; worth another attempt."""


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    if _kinds(error) & _NO_CREDENTIALS_KINDS:
        return False
    status = http_status(error)
    if error_code(error) in _TRANSIENT_CODES:
        return True
    if status is not None:
        return status in _TRANSIENT_STATUS or status // 100 == 5
    known = (ShortReadError, TimeoutError, ConnectionError)
    return any(isinstance(cause, known) for cause in _causes(error)) or bool(_kinds(error) & _TRANSIENT_KINDS)


def is_missing(error: BaseException) -> bool:
    """Return whether an error means that there is no such object or bucket."""
    return isinstance(error, FileNotFoundError) or http_status(error) == 404


def http_status(error: BaseException) -> int | None:
    """Return the server's status number, or None if unknown."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            found = next((getattr(cause, name, None) for name in ("status_code", "status", "code")), None)
        if str(found).isdigit():
            return int(str(found))
    return None


def error_code(error: BaseException) -> str:
    """Return the server's code of the error, like ``SlowDown``; empty if there is none."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return str(response["Error"].get("Code", ""))
    return ""


def storage_error(url: Url, error: BaseException, *, num_attempts: int) -> StorageError:
    """Return the error to raise, with the address, the server's text and what to do."""
    said = _said(error)
    if _kinds(error) & _NO_CREDENTIALS_KINDS:
        how = _HOW_TO_GIVE_CREDENTIALS.get(_FAMILY.get(url.scheme, url.scheme), "give them the way its library does")
        return StorageError(f"{url}: no credentials were found: {how}")
    if is_transient(error):
        return StorageError(
            f"{url}: given up after {num_attempts} attempts: {said}; check the network and run the same command again"
        )
    if isinstance(error, FileExistsError) or http_status(error) == 412:
        return ConflictError(f"{url} was changed by another process meanwhile: {said}")
    if is_missing(error):
        if error_code(error) == "NoSuchBucket":
            return MissingObjectError(f"{url}: there is no such bucket; check the address")
        return MissingObjectError(f"{url}: there is no such object; check the address, and whether it was removed")
    if isinstance(error, PermissionError) or http_status(error) in {401, 403}:
        return StorageError(f"{url}: the store denies it: {said}; check the credentials and what they permit")
    return StorageError(f"{url}: {said}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _kinds(error: BaseException) -> set[str]:
    return {kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__}


def _said(error: BaseException) -> str:
    """Text of the server or library: one line of bounded length, without credentials."""
    code = error_code(error)
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    text = " ".join(without_secrets(text, os.environ).split())
    text = f"{code}: {text}" if code and code not in text else text
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Retry:
    """Repeated attempts of a request.

    Attributes
    ----------
    num_attempts
        Maximal number of attempts, at least 1.
    first_s, max_s
        The longest wait before the second attempt, doubled for each further one; and its bound. Seconds.
    sleep
        Called with seconds.
    draw
        Returns 0 ... 1, for a wait between half and all of the longest: many workers must not return at the same time.
    """

    num_attempts: int = 6
    first_s: float = 0.25
    max_s: float = 10.0
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = random.random

    def run(self, request: Callable[[], Result]) -> Result:
        """Return the result of a request, repeated until it succeeds; raises the last or first permanent error."""
        for attempt in range(1, self.num_attempts):
            try:
                return request()
            except Exception as error:
                if not is_transient(error):
                    raise
            self.sleep(self.wait_s(attempt))
        return request()

    def wait_s(self, attempt: int) -> float:
        """Return the seconds to wait after attempt number `attempt`, from 1."""
        longest_s = min(self.max_s, self.first_s * 2.0 ** (attempt - 1))
        return longest_s * (0.5 + 0.5 * self.draw())
