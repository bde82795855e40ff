"""The fsspec file system behind an address, set up so that nothing about it is remembered or hidden."""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from typing import Any

import fsspec
from fsspec.config import conf

from leukemia_data.errors import UsageError
from leukemia_data.storage.faults import storage_error
from leukemia_data.storage.url import Url

_S3 = frozenset({"s3", "s3a"})
_LOCAL = frozenset({"file", "local"})
_EXTRA = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
_KNOWN = _LOCAL | {"memory"} | _EXTRA.keys()
_NUM_CONNECTIONS = 32
# What the libraries find servers and credentials by.
_SETTINGS = ("AWS_", "AZURE_", "FSSPEC_", "GCSFS_", "GOOGLE_", "STORAGE_")
# Threads that begin together must not open one each.
_OPENING = threading.Lock()


def shared_filesystem(scheme: str) -> Any:  # noqa: ANN401 - fsspec has no types
    """The one file system of this process for a scheme, opened by :func:`open_filesystem` when it is first asked for.

    Opening one takes up to a second of computing. Another environment, such as another server's address, and a forked
    child get their own.
    """
    settings = tuple(item for item in sorted(os.environ.items()) if item[0].startswith(_SETTINGS))
    with _OPENING:
        return _opened(scheme, settings, os.getpid())


@lru_cache(maxsize=8)
def _opened(scheme: str, settings: tuple[tuple[str, str], ...], process: int) -> Any:  # noqa: ANN401
    return open_filesystem(scheme)


def open_filesystem(scheme: str) -> Any:  # noqa: ANN401 - fsspec has no types
    """A file system of its own, without cached listings.

    Credentials, addresses of servers and all else come from where the library takes them: the environment, its files,
    and fsspec's configuration.

    Raises
    ------
    UsageError
        If there is no such scheme, or its library is not installed.
    StorageError
        If the library refuses its settings.
    """
    if scheme not in _KNOWN:
        # fsspec knows more, some of which cannot be opened by an address alone, or give no tags or ranges.
        raise UsageError(f"{scheme}:// is no kind of store that is known: use s3://, gs://, az:// or file://")
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme in _S3:
        options["config_kwargs"] = _s3_settings(scheme)
    elif scheme in _LOCAL:
        options["auto_mkdir"] = True
    try:
        filesystem = fsspec.filesystem(scheme, **options)
    except ImportError as error:
        extra = _EXTRA.get(scheme)
        cure = f'pip install "leukemia-cells[{extra}]"' if extra else "install the library that fsspec names for it"
        raise UsageError(f"{scheme}:// needs a library that is not installed: {cure}") from error
    except Exception as error:
        # Whatever a library finds wrong with its settings, such as no name of an account.
        raise storage_error(Url(scheme, ""), error, num_attempts=1) from error
    if scheme in _S3:
        # Attempts are counted and spaced in one place, storage/retry.py.
        filesystem.retries = 1
    return filesystem


def _s3_settings(scheme: str) -> dict[str, Any]:
    own = {"retries": {"total_max_attempts": 1}, "max_pool_connections": _NUM_CONNECTIONS}
    return {**own, **conf.get(scheme, {}).get("config_kwargs", {})}
