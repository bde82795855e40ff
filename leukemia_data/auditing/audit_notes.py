"""What an audit could not see, in sentences: kinds of arguments and their images in, notes out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from leukemia_data.auditing.audit_image import AuditImage
from leukemia_data.samples.near_looks import comparison_note

_SAME_SET_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class AuditArgument:
    """One thing that is audited: how the user called it, what it is, and how that reads (a cache's recipe, size)."""

    name: str
    kind: Literal["source", "cache", "table"]
    text: str


def blind_spots(arguments: Sequence[AuditArgument], images: Sequence[AuditImage]) -> list[str]:
    """Sentences on what these arguments do not allow to check, and on arguments that are one set of images."""
    members: defaultdict[int, list[AuditImage]] = defaultdict(list)
    for image in images:
        members[image.argument].append(image)
    notes = []
    for number, argument in enumerate(arguments):
        if argument.kind == "cache":
            notes.append(
                f"{argument.name} is a cache: its frames' size, border, centre, pieces and background were not "
                "checked, and near duplicates were looked for in preprocessed images; audit the SOURCE for both"
            )
        elif argument.kind == "table":
            notes.append(
                f"{argument.name} has names and SHA-256 but no pixels: identical means equal bytes, and near "
                "duplicates and frames were not checked"
            )
            notes.extend(_incomparable_parts(argument, members[number]))
    if how := comparison_note(sum(bool(image.look) for image in images)):
        notes.append(how)
    for (a, first), (b, second) in combinations(enumerate(arguments), 2):
        notes.extend(_pair_notes(first, members[a], second, members[b]))
    return notes


def _incomparable_parts(argument: AuditArgument, images: Sequence[AuditImage]) -> list[str]:
    """Parts whose files have no size in common cannot have equal bytes, whatever they show."""
    sizes: defaultdict[str, set[int]] = defaultdict(set)
    for image in images:
        if image.split and image.size_bytes >= 0:
            sizes[image.split].add(image.size_bytes)
    apart = [f"{a} and {b}" for a, b in combinations(sorted(sizes), 2) if not sizes[a] & sizes[b]]
    if not apart:
        return []
    return [
        f"{argument.name}: files of {', '.join(apart)} differ in size, so equal pixels would not have equal bytes "
        "there; only an audit of the images themselves can compare these parts"
    ]


def _pair_notes(
    first: AuditArgument, first_images: Sequence[AuditImage], second: AuditArgument, second_images: Sequence[AuditImage]
) -> list[str]:
    if {first.kind, second.kind} == {"cache", "table"}:
        return [f"{first.name} and {second.name} cannot be compared: a cache has no SHA-256 of its files"]
    a, b = ({key for image in images for key in image.content_keys} for images in (first_images, second_images))
    if a and b and len(a & b) >= _SAME_SET_SHARE * min(len(a), len(b)):
        return [
            f"{first.name} and {second.name} are nearly the same set of images ({len(a & b):,} in common): "
            "if one was made from the other, give only one of them"
        ]
    return []
