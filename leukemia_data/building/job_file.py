"""The job file: a build plan to be run by jobs on many machines."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from leukemia_data.building.plan import BuildPlan, PlanInputs
from leukemia_data.building.shard_task import ShardTask, Target
from leukemia_data.caches.hdf5_file import check_datasets, hdf5_bytes, open_hdf5
from leukemia_data.caches.manifest import QuarantinedImage
from leukemia_data.errors import CacheError
from leukemia_data.files.atomic import FileState, atomic_path
from leukemia_data.files.documents import parse_json
from leukemia_data.operations.recipe import Recipe
from leukemia_data.records.fingerprint import bytes_digest
from leukemia_data.records.record import ImagePlace, Record
from leukemia_data.records.sample_table import decode_texts, encode_text, states_array
from leukemia_data.stores.object_store import StoredUrl
from leukemia_data.stores.url import is_url

JOB_FILE_FORMAT = "leukemia-cells plan"
JOB_FILE_FORMAT_VERSION = 2
_TEXT_COLUMNS = ("ids", "path_ends", "subjects", "splits")
_NUMBER_COLUMNS = ("labels", "folds", "states")
_COLUMNS = (*_TEXT_COLUMNS, *_NUMBER_COLUMNS)
_PARTS = ("settings", "first_rows", "row_digests", "lacking")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """The inputs of a build plan, apart from its images.

    Attributes
    ----------
    inputs
        The folder of the caches is an absolute path.
    codecs
        Per size, how the pixels are stored.
    listed_at_ns
        Time when the source was listed (ns since the epoch).
    commits
        Per size, the digest of the cache's manifest when the plan was made; None where there was no cache.
    quarantined
        Images known to be unusable at that time.
    """

    inputs: PlanInputs
    codecs: tuple[str, ...]
    listed_at_ns: int
    commits: tuple[str | None, ...]
    quarantined: tuple[QuarantinedImage, ...]

    @property
    def targets(self) -> tuple[Target, ...]:
        """The caches to build, one per size."""
        return tuple(map(self.inputs.target, self.inputs.sizes_px, self.codecs))


@dataclass(frozen=True)
class JobFile:
    """An open job file. The rows of its images are read on demand.

    Attributes
    ----------
    digest
        Digest of the whole content.
    first_rows : ndarray of shape (num_tasks + 2,), int64
        First row of each shard to make, of the kept shards, and the end of all rows.
    row_digests : ndarray of shape (num_tasks + 1, 16), uint8
    lacking : ndarray of shape (num_tasks, num_sizes), uint8
        1 if the cache lacks the shard.
    """

    path: Path
    digest: str
    settings: JobSettings
    path_start: str
    first_rows: NDArray[np.int64]
    row_digests: NDArray[np.uint8]
    lacking: NDArray[np.uint8]

    @property
    def num_tasks(self) -> int:
        """Number of shards to make."""
        return len(self.lacking)

    @property
    def num_records(self) -> int:
        """Number of images in the source, including those of kept shards."""
        return int(self.first_rows[-1])

    @property
    def num_images(self) -> int:
        """Number of images in the shards to make."""
        return self.num_images_of(0, self.num_tasks)

    def num_images_of(self, first: int, end: int) -> int:
        """Return the number of images of tasks `first` (from 0) to before `end`."""
        return int(self.first_rows[end] - self.first_rows[first])

    def tasks(self, first: int, end: int) -> list[ShardTask]:
        """Return tasks `first` (from 0) to before `end`.

        Raises
        ------
        CacheError
            If their rows are damaged.
        """
        targets = self.settings.targets
        return [
            ShardTask(
                tuple(records),
                tuple(target for target, lacks in zip(targets, self.lacking[first + number], strict=True) if lacks),
                self.settings.inputs.recipe,
                recheck_ns=self.settings.inputs.recheck_ns,
            )
            for number, records in enumerate(self._parts(first, end))
        ]

    def records(self) -> list[Record]:
        """Return all records of the source, ordered by id; raises CacheError if a row is damaged."""
        parts = self._parts(0, self.num_tasks + 1)
        return sorted((record for part in parts for record in part), key=lambda record: record.record_id)

    def first_ids(self) -> list[str]:
        """Id of the first image of each task."""
        with open_hdf5(self.path, "its rows") as file:
            check_datasets(file, _COLUMNS)
            return decode_texts(file["ids"][()][self.first_rows[: self.num_tasks]])

    def _parts(self, first: int, end: int) -> list[list[Record]]:
        bounds = self.first_rows[first : end + 1].tolist()
        with open_hdf5(self.path, "its rows") as file:
            check_datasets(file, _COLUMNS)
            rows = {name: file[name][bounds[0] : bounds[-1]] for name in _COLUMNS}
        parts = []
        for number, (start, stop) in enumerate(pairwise(bounds), first):
            part = {name: column[start - bounds[0] : stop - bounds[0]] for name, column in rows.items()}
            if _rows_digest(part) != self.row_digests[number].tobytes():
                raise CacheError(f"{self.path} is damaged: the rows of shard {number + 1} are others; plan again")
            parts.append(_records_of(part, self.path_start))
        return parts


def write_job_file(path: Path, plan: BuildPlan, settings: JobSettings) -> JobFile:
    """Write a job file, atomically."""
    shards = [(plan.tasks.records_of(number), plan.tasks.targets_of(number)) for number in plan.tasks.numbers]
    in_tasks = {record.record_id for shard, _ in shards for record in shard}
    rest = tuple(record for record in plan.records if record.record_id not in in_tasks)
    parts = [*(shard for shard, _ in shards), rest]
    records = [record for part in parts for record in part]
    # Stored once instead of in every row.
    path_start = os.path.commonprefix([_place_text(record.path) for record in records])  # noqa: RUF071
    columns = _columns_of(records, path_start)
    first_rows = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    slices = [slice(start, stop) for start, stop in pairwise(first_rows.tolist())]
    digests = [_rows_digest({name: column[rows] for name, column in columns.items()}) for rows in slices]
    lacking = [[target in lacking for target in settings.targets] for _, lacking in shards]
    columns["first_rows"] = first_rows
    columns["row_digests"] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
    columns["lacking"] = np.array(lacking, np.uint8).reshape(len(shards), len(settings.codecs))
    columns["settings"] = np.frombuffer(json.dumps(_settings_content(settings, path_start)).encode(), np.uint8)

    def fill(file: h5py.File) -> None:
        file.attrs.update(format=JOB_FILE_FORMAT, format_version=JOB_FILE_FORMAT_VERSION, digest=_parts_digest(columns))
        for name, column in columns.items():
            file.create_dataset(name, data=column)

    data = hdf5_bytes(fill)
    with atomic_path(path) as partial:
        partial.write_bytes(data)
    return open_job_file(path)


def open_job_file(path: Path) -> JobFile:
    """Open a job file, without reading the rows of its images.

    Raises
    ------
    CacheError
        If the file is missing, damaged, or not a job file of this format version.
    UsageError
        If the recipe has operations of another version than this installation's.
    """
    with open_hdf5(path, "the plan") as file:
        kind, version = file.attrs.get("format"), file.attrs.get("format_version")
        if kind != JOB_FILE_FORMAT:
            raise CacheError(f"{path} is no plan: `ldata plan` writes them")
        if version != JOB_FILE_FORMAT_VERSION:
            raise CacheError(f"{path} is a plan of another release (version {version}): plan again with `ldata plan`")
        check_datasets(file, [*_PARTS, *_COLUMNS])
        parts = {name: file[name][()] for name in _PARTS}
        if _parts_digest(parts) != file.attrs["digest"]:
            raise CacheError(f"{path} is damaged: its digest does not belong to its content; plan again")
        content = parse_json(parts["settings"].tobytes().decode())
        digest = str(file.attrs["digest"])
    settings, start = _settings_of(content), str(content["path_start"])
    return JobFile(path, digest, settings, start, parts["first_rows"], parts["row_digests"], parts["lacking"])


def _settings_content(settings: JobSettings, path_start: str) -> dict[str, Any]:
    inputs = {field.name: getattr(settings.inputs, field.name) for field in fields(PlanInputs)}
    return {
        **inputs,
        "cache_root": os.fspath(settings.inputs.cache_root),
        "recipe": settings.inputs.recipe.to_dict(),
        "codecs": settings.codecs,
        "listed_at_ns": settings.listed_at_ns,
        "commits": settings.commits,
        "quarantined": [[image.record_id, image.reason] for image in settings.quarantined],
        "path_start": path_start,
    }


def _settings_of(content: dict[str, Any]) -> JobSettings:
    inputs = {field.name: content[field.name] for field in fields(PlanInputs)}
    inputs |= {"cache_root": Path(content["cache_root"]), "recipe": Recipe.from_dict(content["recipe"])}
    inputs |= {name: tuple(content[name]) for name in ("sizes_px", "classes")}
    return JobSettings(
        inputs=PlanInputs(**inputs),
        codecs=tuple(content["codecs"]),
        listed_at_ns=content["listed_at_ns"],
        commits=tuple(content["commits"]),
        quarantined=tuple(QuarantinedImage(*image) for image in content["quarantined"]),
    )


def _place_text(place: ImagePlace) -> str:
    return os.fspath(place.absolute()) if isinstance(place, Path) else str(place)


def _place_of(text: str) -> ImagePlace:
    # Object names may hold characters that no user may write in a URL, such as "#". No absolute path is like a URL.
    return StoredUrl(*text.split("://", 1)) if is_url(text) else Path(text)


def _columns_of(records: Sequence[Record], path_start: str) -> dict[str, NDArray[Any]]:
    ends = [_place_text(record.path)[len(path_start) :] for record in records]
    return {
        "ids": _texts([record.record_id for record in records]),
        "path_ends": _texts(ends),
        "subjects": _texts([record.subject for record in records]),
        "splits": _texts([record.split for record in records]),
        "labels": np.array([record.label for record in records], np.int16),
        "folds": np.array([record.fold for record in records], np.int16),
        "states": states_array((record.state for record in records), len(records)),
    }


def _records_of(part: dict[str, NDArray[Any]], path_start: str) -> list[Record]:
    texts = [decode_texts(part[name]) for name in _TEXT_COLUMNS]
    numbers = [part[name].tolist() for name in _NUMBER_COLUMNS]
    return [
        Record(record_id, _place_of(path_start + path_end), label, subject, split, fold, FileState(*state))
        for record_id, path_end, subject, split, label, fold, state in zip(*texts, *numbers, strict=True)
    ]


def _texts(texts: Sequence[str]) -> NDArray[np.bytes_]:
    encoded = [encode_text(text) for text in texts]
    return np.array(encoded, f"S{max(map(len, encoded), default=0) or 1}")


def _rows_digest(part: dict[str, NDArray[Any]]) -> bytes:
    return bytes_digest(b"".join(part[name].tobytes() for name in _COLUMNS))


def _parts_digest(parts: dict[str, NDArray[Any]]) -> str:
    return bytes_digest(b"".join(parts[name].tobytes() for name in _PARTS)).hex()
