"""What an error of a store means: worth another attempt or not, and one line for people.

The libraries of the stores have errors of their own. They are told here by the number that the server answered and by
the names of their classes, so that none of these libraries has to be there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from leukemia_data.errors import StorageError
from leukemia_data.storage.secrets import without_secrets
from leukemia_data.storage.url import Url

_TRANSIENT_STATUS = frozenset({408, 425, 429})
_TRANSIENT_CODES = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "XAmzContentSHA256Mismatch",
    }
)
_TRANSIENT_KINDS = frozenset(
    {
        "ClientConnectionError",
        "ClientPayloadError",
        "ConnectionError",
        # What arrived fails the checksum that the server sent along.
        "FlexibleChecksumError",
        "HTTPClientError",
        "IncompleteRead",
        "IncompleteReadError",
        "ResponseParserError",
        "ServiceRequestError",
        "ServiceResponseError",
        "TransportError",
    }
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
    """Fewer or more bytes came than were asked for; worth another attempt."""


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed when it is made again."""
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
    """Whether an error says that there is no such object or bucket."""
    return isinstance(error, FileNotFoundError) or http_status(error) == 404


def is_conflict(error: BaseException) -> bool:
    """Whether an error says that a condition of the request does not hold."""
    return isinstance(error, FileExistsError) or http_status(error) == 412


def http_status(error: BaseException) -> int | None:
    """The number that the server answered, if the error knows it."""
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
    """The word by which the server calls the error, like ``SlowDown``; empty if there is none."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return str(response["Error"].get("Code", ""))
    return ""


def storage_error(url: Url, error: BaseException, *, num_attempts: int) -> StorageError:
    """One line for people: where, what the server said, what to do."""
    said = _said(error)
    if _kinds(error) & _NO_CREDENTIALS_KINDS:
        how = _HOW_TO_GIVE_CREDENTIALS.get(_FAMILY.get(url.scheme, url.scheme), "give them the way its library does")
        return StorageError(f"{url}: no credentials were found: {how}")
    if is_transient(error):
        return StorageError(
            f"{url}: given up after {num_attempts} attempts: {said}; check the network and run the same command again"
        )
    if is_conflict(error):
        return ConflictError(f"{url} was changed by somebody else meanwhile: {said}")
    if is_missing(error):
        if error_code(error) == "NoSuchBucket":
            return MissingObjectError(f"{url}: there is no such bucket; check the address")
        return MissingObjectError(f"{url}: there is no such object; check the address, and whether somebody removed it")
    if isinstance(error, PermissionError) or http_status(error) in {401, 403}:
        return StorageError(f"{url}: the store denies it: {said}; check the credentials and what they permit")
    return StorageError(f"{url}: {said}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it was raised from; what merely was being handled at the time says nothing."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _kinds(error: BaseException) -> set[str]:
    return {kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__}


def _said(error: BaseException) -> str:
    """What the server or the library said: one line, of bounded length, without credentials."""
    code = error_code(error)
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    text = " ".join(without_secrets(text, os.environ).split())
    text = f"{code}: {text}" if code and code not in text else text
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
