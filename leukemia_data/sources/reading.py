"""The reading of a source: how its folders, names and tables were understood.

It is computed first, printed by ``ldata scan``, ``ldata build`` and ``ldata audit``, kept in the manifest of each
cache, and compared with the next build's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any, NamedTuple

from leukemia_data.errors import listed
from leukemia_data.sources.positive_class import PositiveClass, known_positive, positive_text
from leukemia_data.sources.reading_options import ReadingOptions

_MAX_CLASSES_SHOWN = 12
_MAX_COLUMNS_SHOWN = 8
WORTH_A_WARNING = 1.2
"""Factor of chance with which frames must predict the class for a warning: 0.6 for two classes."""


class SplitFound(NamedTuple):
    """A split given by the source, with the folders, tables or cells that it was read from."""

    name: str
    num_images: int
    words: tuple[str, ...] = ()


CNMC_NAMING = "C-NMC file names"
"""As a source of classes and subjects. Its subjects are the same people in every source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectsFound:
    """The subjects of a source.

    Attributes
    ----------
    sources
        What they were read from, such as ``C-NMC file names``; empty if unknown.
    count, num_unknown
        Number of subjects, and of images without one.
    examples
        A few subjects.
    several_classes, num_several
        A few of the subjects that have images of several classes, and their number.
    alike, num_alike
        A few groups, such as ``P1 = p1``, of subjects that differ only in case, separators, leading zeros and ``.0``,
        and the number of groups.
    is_confirmed
        Whether the user defined subjects by an option.
    """

    sources: tuple[str, ...] = ()
    count: int = 0
    num_unknown: int = 0
    examples: tuple[str, ...] = ()
    several_classes: tuple[str, ...] = ()
    num_several: int = 0
    alike: tuple[str, ...] = ()
    num_alike: int = 0
    is_confirmed: bool = False

    @property
    def is_doubtful(self) -> bool:
        """Whether some subject has several classes, and the user did not confirm it."""
        return self.num_several > 0 and not self.is_confirmed

    @property
    def may_be_fewer(self) -> bool:
        """Whether some subjects are written so similarly that they may be one, and the user did not confirm them."""
        return self.num_alike > 0 and not self.is_confirmed


class TableFound(NamedTuple):
    """A table that was read or found: its columns by role, and those that were not read."""

    name: str
    read: Mapping[str, str] = MappingProxyType({})
    not_read: tuple[str, ...] = ()
    is_source: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRead:
    """Files or whole folders that were skipped for one reason, with examples."""

    reason: str
    count: int
    examples: tuple[str, ...]


class FramesFound(NamedTuple):
    """A sample of one class's images.

    Attributes
    ----------
    class_name
        Empty for images without a class.
    num_looked_at
        Images in the sample, unreadable ones included.
    sizes
        ``(height, width, images)`` in pixels, the most frequent first.
    modes
        Pillow's name of each mode, such as ``RGB``, with the number of images.
    ground
        ``black``, ``grey`` or ``bright``; empty if nothing was decoded.
    """

    class_name: str
    num_looked_at: int
    sizes: tuple[tuple[int, int, int], ...] = ()
    modes: tuple[tuple[str, int], ...] = ()
    ground: str = ""

    def describe(self) -> str:
        """Return the sizes, modes and ground in words."""
        sizes = listed((f"{height}x{width}" for height, width, _ in self.sizes), most=3) or "unreadable"
        modes = "/".join(mode for mode, _ in self.modes)
        ground = f", {self.ground} ground" if self.ground else ""
        return f"{self.class_name or 'unlabelled'} {sizes} {modes}{ground}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFinding:
    """How well the frames alone predict the class, from a sample.

    Attributes
    ----------
    balanced_accuracy, low, high
        Mean recall of the classes by a cross-validated shallow tree, 0 ... 1, and its 99 % interval.
    num_images
        In the sample.
    folds_by
        What the folds keep together, such as ``subject``, in words.
    features
        The deciding features, such as ``height`` or ``ground``, the most important first.
    classes
        Each class, with its frames described by these features.
    """

    balanced_accuracy: float
    low: float
    high: float
    num_images: int
    folds_by: str
    features: tuple[str, ...]
    classes: tuple[tuple[str, str], ...]

    @property
    def chance(self) -> float:
        """Balanced accuracy of guessing."""
        return 1 / len(self.classes)

    @property
    def tells_class(self) -> bool:
        """Whether the frames predict the class: beyond the interval, and by a fifth more than chance."""
        return self.low > self.chance and self.balanced_accuracy >= WORTH_A_WARNING * self.chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a source was understood.

    Attributes
    ----------
    options
        Options given by the user.
    classes
        Name and number of images of each class; a position is a label.
    class_sources
        What the classes were read from.
    num_unlabelled
        Images without a class.
    splits, folds
        Splits given by the source, and number of images of each fold.
    subjects
        Whose images they are.
    other_folders
        Text on folders whose names mean none of these.
    tables
        The tables among the sources and below them.
    passed_over
        What was skipped, by reason.
    notes
        What else a user should know.
    told_by
        By what the next build recognizes changed files.
    frames
        Each class's frames, from a sample; empty if none was taken.
    frame_finding
        Whether the frames alone predict the class; None if not tested, or if the sample is too small.
    positive
        The positive one of two classes; None if undecided.
    """

    options: ReadingOptions = field(default_factory=ReadingOptions)
    classes: tuple[tuple[str, int], ...] = ()
    class_sources: tuple[str, ...] = ()
    num_unlabelled: int = 0
    splits: tuple[SplitFound, ...] = ()
    folds: tuple[tuple[int, int], ...] = ()
    subjects: SubjectsFound = field(default_factory=SubjectsFound)
    other_folders: tuple[str, ...] = ()
    tables: tuple[TableFound, ...] = ()
    passed_over: tuple[NotRead, ...] = ()
    notes: tuple[str, ...] = ()
    told_by: str = ""
    frames: tuple[FramesFound, ...] = ()
    frame_finding: FrameFinding | None = None
    positive: PositiveClass | None = None

    @property
    def num_images(self) -> int:
        """Number of images, with a class or without."""
        return sum(count for _, count in self.classes) + self.num_unlabelled

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**_plain({**values, "options": {}}), "options": self.options.to_dict()}

    def to_record(self) -> dict[str, Any]:
        """Return what a manifest keeps: all but the notes, which name places of this machine."""
        return {**self.to_dict(), "notes": []}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Reading:
        """Return the reading of :meth:`to_dict`'s result.

        Raises
        ------
        KeyError, TypeError, ValueError
            If the values have another form.
        """
        return cls(
            options=ReadingOptions.from_dict(values["options"]),
            classes=tuple((str(name), int(count)) for name, count in values["classes"]),
            class_sources=tuple(values["class_sources"]),
            num_unlabelled=int(values["num_unlabelled"]),
            splits=tuple(SplitFound(**_tuples(split)) for split in values["splits"]),
            folds=tuple((int(fold), int(count)) for fold, count in values["folds"]),
            subjects=SubjectsFound(**_tuples(values["subjects"])),
            other_folders=tuple(values["other_folders"]),
            tables=tuple(TableFound(**_tuples(table)) for table in values["tables"]),
            passed_over=tuple(NotRead(**_tuples(one)) for one in values["passed_over"]),
            notes=tuple(values["notes"]),
            told_by=str(values["told_by"]),
            frames=tuple(frames_found(found) for found in values["frames"]),
            # Caches of earlier versions have none.
            frame_finding=_frame_finding(values.get("frame_finding")),
            positive=_positive(values),
        )

    def lines(self) -> list[str]:
        """Return the reading as text, one line for each fact."""
        return [
            f"classes: {self._classes_text()}",
            *self._positive_lines(),
            f"splits: {self._splits_text()}",
            f"subjects: {self._subjects_text()}",
            *([f"frames: {self._frames_text()}"] if self.frames else []),
            *(f"folders: {text}" for text in self.other_folders),
            *(_table_text(table) for table in self.tables),
            *(
                f"passed over: {one.count:,} {one.reason}, such as {', '.join(one.examples)}"
                for one in self.passed_over
            ),
            *(f"note: {note}" for note in self.notes),
        ]

    def short_lines(self, most: int = 12, *, with_notes: bool = True) -> list[str]:
        """Return the first lines, and the number of further ones."""
        lines = [line for line in self.lines() if with_notes or not line.startswith("note: ")]
        return lines if len(lines) <= most else [*lines[: most - 1], f"and {len(lines) - most + 1} more: ldata scan"]

    def _classes_text(self) -> str:
        counts = [f"{name} {count:,}" for name, count in self.classes]
        shown = listed(counts, most=_MAX_CLASSES_SHOWN) or "none"
        source = f" (from {'; '.join(self.class_sources)})" if self.class_sources else ""
        return f"{shown}{source}" + (f", unlabelled {self.num_unlabelled:,}" if self.num_unlabelled else "")

    def _positive_lines(self) -> list[str]:
        names = [name for name, _ in self.classes]
        return [positive_text(names, self.positive)] if self.positive is not None or len(names) == 2 else []

    def _splits_text(self) -> str:
        texts = [
            f"{split.name or 'none'} {split.num_images:,}"
            + (f" (from {listed(split.words, most=4)})" if split.words else "")
            for split in self.splits
        ]
        folds = f"; folds {', '.join(f'{fold}: {count:,}' for fold, count in self.folds)}" if self.folds else ""
        return (", ".join(texts) or "none in the source") + folds

    def _subjects_text(self) -> str:
        found = self.subjects
        if not found.count:
            return "unknown: --subject-pattern, --subject-from folder or a table's column gives them"
        examples = f", such as {', '.join(found.examples)}" if found.examples else ""
        unknown = f"; unknown for {found.num_unknown:,} images" if found.num_unknown else ""
        return f"{found.count:,} (from {'; '.join(found.sources)}{examples}){unknown}{self._doubt_text()}"

    def _frames_text(self) -> str:
        looked_at = sum(found.num_looked_at for found in self.frames)
        described = {found.describe().removeprefix(found.class_name or "unlabelled").strip() for found in self.frames}
        alike = len(described) == 1
        text = described.pop() if alike else listed((found.describe() for found in self.frames), most=4, separator="; ")
        return f"{text} ({looked_at:,} of {self.num_images:,} looked at)"

    def _doubt_text(self) -> str:
        found = self.subjects
        doubts = (
            (found.num_several, "with images of several classes", found.several_classes),
            (found.num_alike, "may be one person, written in several ways", found.alike),
        )
        before, after = ("; ", ", as was confirmed") if found.is_confirmed else ("; WRONG: ", "")
        return "".join(
            f"{before}{count:,} {what} ({listed(examples, most=3)}){after}" for count, what, examples in doubts if count
        )


def differences(earlier: Reading, now: Reading) -> list[str]:
    """Return what two readings understand differently, in sentences.

    Counts and notes are ignored: only what may decide a result counts.
    """
    return [
        f"{title} {listed(before) or 'none'}, now {listed(after) or 'none'}"
        for (title, before), (_, after) in zip(_facts(earlier), _facts(now), strict=True)
        if before != after
    ]


def _facts(reading: Reading) -> tuple[tuple[str, list[str]], ...]:
    splits = (f"{split.name} ({listed(split.words)})" if split.words else split.name for split in reading.splits)
    return (
        ("options:", [reading.options.command_text]),
        ("classes", [name for name, _ in reading.classes]),
        ("classes were read from", list(reading.class_sources)),
        ("splits", list(splits)),
        ("subjects were read from", list(reading.subjects.sources)),
    )


def _table_text(table: TableFound) -> str:
    read = ", ".join(role if role == title.lower() else f"{role} from {title}" for role, title in table.read.items())
    rest = listed(table.not_read, most=_MAX_COLUMNS_SHOWN)
    if not table.is_source:
        return f"table: {table.name} is not read (columns {rest}); give it as SOURCE to read it"
    return f"table: {table.name}: {read}" + (f"; not read: {rest}" if rest else "")


def _positive(values: Mapping[str, Any]) -> PositiveClass | None:
    """The positive class of a manifest; for manifests of earlier releases, the one that the names imply."""
    if "positive" not in values:
        return known_positive([str(name) for name, _ in values["classes"]])
    found = values["positive"]
    return None if found is None else PositiveClass(str(found["name"]), str(found["reason"]))


def _plain(value: Any) -> Any:  # noqa: ANN401 - nested values
    if isinstance(value, SubjectsFound | NotRead | FrameFinding):
        return _plain(asdict(value))
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def frames_found(values: Mapping[str, Any]) -> FramesFound:
    """Return one class's frames from JSON values.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the values have another form.
    """
    return FramesFound(
        class_name=str(values["class_name"]),
        num_looked_at=int(values["num_looked_at"]),
        sizes=tuple((int(height), int(width), int(count)) for height, width, count in values["sizes"]),
        modes=tuple((str(mode), int(count)) for mode, count in values["modes"]),
        ground=str(values["ground"]),
    )


def _frame_finding(values: Mapping[str, Any] | None) -> FrameFinding | None:
    if values is None:
        return None
    return FrameFinding(
        balanced_accuracy=float(values["balanced_accuracy"]),
        low=float(values["low"]),
        high=float(values["high"]),
        num_images=int(values["num_images"]),
        folds_by=str(values["folds_by"]),
        features=tuple(map(str, values["features"])),
        classes=tuple((str(name), str(text)) for name, text in values["classes"]),
    )


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def unique(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the non-empty texts, each once, in order."""
    return tuple(dict.fromkeys(text for text in texts if text))
