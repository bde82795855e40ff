"""Groups of samples that must stay together, and their assignment to parts of given sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import UsageError
from leukemia_data.records.near_looks import joined
from leukemia_data.records.sample_table import SampleTable


def linked_groups(table: SampleTable) -> NDArray[np.int64]:
    """Number the groups of samples with a common subject or identical or near-identical pixels, or linked by others.

    Returns
    -------
    ndarray of shape (n,), int64
        Group of each sample, numbered from 0 in the order of the samples.
    """
    owners = _owner_codes(table.subjects)
    shown = shown_codes(table)
    is_tie = np.bincount(shown, minlength=1)[shown] > 1
    ties = _ties(owners[is_tie], shown[is_tie])
    owners = joined(np.arange(owners.max(initial=-1) + 1), *ties.T)[owners]
    _, firsts, group_N = np.unique(owners, return_index=True, return_inverse=True)
    number_of_group = np.empty(len(firsts), np.int64)
    number_of_group[np.argsort(firsts)] = np.arange(len(firsts))
    return number_of_group[group_N]


def text_codes(column: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Number the different texts of a column, shape (n,), from 0; equal texts have equal numbers."""
    numbers: dict[bytes, int] = {}
    return np.fromiter((numbers.setdefault(text, len(numbers)) for text in column.tolist()), np.int64, len(column))


def digest_codes(digests: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number the different digests, shape (n, 16), from 0; equal digests have equal numbers, shape (n,)."""
    first_N, second_N = np.ascontiguousarray(digests).view(np.uint64).reshape(len(digests), 2).T
    order = np.lexsort((second_N, first_N))
    is_new = (np.diff(first_N[order]) != 0) | (np.diff(second_N[order]) != 0)
    codes_N = np.zeros(len(digests), np.int64)
    codes_N[order[1:]] = np.cumsum(is_new)
    return codes_N


def shown_codes(table: SampleTable) -> NDArray[np.int64]:
    """Number contents, shape (n,): equal for identical or near-identical images, and those linked by them."""
    pixels = digest_codes(table.pixel_digests)
    near = table.near_groups
    _, near_codes = np.unique(near, return_inverse=True)
    if len(table) == 0 or int(near_codes.max()) == len(table) - 1:
        return pixels
    order = np.argsort(near_codes, kind="stable")
    is_same = np.diff(near_codes[order]) == 0
    first, second = pixels[order[:-1][is_same]], pixels[order[1:][is_same]]
    return joined(np.arange(int(pixels.max()) + 1), first, second)[pixels]


def near_ties(table: SampleTable) -> NDArray[np.int64]:
    """Return links by near-identical images between samples of different subjects: rows and their groups, shape (t, 2).

    Empty if all images of each group are of one known subject: splits by subject are then those of a table without
    looks.
    """
    _, group_N, size_G = np.unique(table.near_groups, return_inverse=True, return_counts=True)
    is_grouped = np.flatnonzero(size_G[group_N] > 1)
    owners, groups = _owner_codes(table.subjects)[is_grouped], group_N[is_grouped]
    pairs = np.unique(np.stack((groups, owners), axis=1), axis=0)
    is_tie = np.bincount(pairs[:, 0], minlength=len(size_G))[groups] > 1
    rows = is_grouped[is_tie]
    return np.stack((rows, table.near_groups[rows]), axis=1)


def _owner_codes(subjects: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Numbers of the subjects; each sample of an unknown subject has its own."""
    codes = text_codes(subjects)
    is_unknown = subjects == b""
    codes[is_unknown] = codes.max(initial=-1) + 1 + np.arange(is_unknown.sum())
    return codes


def _ties(owners: NDArray[np.int64], shown: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs (P, 2) of different owners with the same content: each with the owner of the next such sample."""
    order = np.lexsort((owners, shown))
    owners, shown = owners[order], shown[order]
    is_pair = (shown[1:] == shown[:-1]) & (owners[1:] != owners[:-1])
    return np.unique(np.stack((owners[:-1], owners[1:]), 1)[is_pair], axis=0)


def numbered_by_content(groups: NDArray[np.int64], table: SampleTable) -> NDArray[np.int64]:
    """Number groups, shape (n,), by their smallest pixel digest, so that a split does not depend on file names."""
    # 64-bit integers in the order of the bytes.
    first_N, second_N = np.ascontiguousarray(table.pixel_digests).view(">u8").reshape(-1, 2).astype(np.uint64).T
    by_digest = np.lexsort((second_N, first_N))
    _, first_of_group, group_of = np.unique(groups[by_digest], return_index=True, return_inverse=True)
    number_of_group = np.argsort(np.argsort(first_of_group))
    numbered = np.empty_like(groups)
    numbered[by_digest] = number_of_group[group_of]
    return numbered


def majority_labels(groups: NDArray[np.int64], labels: NDArray[np.int16]) -> NDArray[np.int64]:
    """Return the most frequent label of each group, shape (g,), int64; the lower one of equally frequent labels.

    Parameters
    ----------
    groups
        Of shape (n,): group of each sample, 0 ... g-1.
    labels
        Of shape (n,), all known.
    """
    counts = np.zeros((int(groups.max()) + 1, int(labels.max()) + 1), np.int64)
    np.add.at(counts, (groups, labels), 1)
    majority: NDArray[np.int64] = counts.argmax(axis=1)
    return majority


_MAX_DRAWS = 200
_DRAW_BUDGET = 400_000


def assign_groups(
    groups: NDArray[np.int64],
    labels: NDArray[np.int16],
    fractions: Sequence[float],
    generator: np.random.Generator,
    too_few: Callable[[int, int], str],
) -> NDArray[np.int8]:
    """Distribute whole groups over parts, class by class, close to the wanted fractions of images and of groups.

    Parameters
    ----------
    groups, labels
        As for :func:`majority_labels`, whose result is a group's class.
    fractions
        Wanted fraction of each part; their sum is 1.
    generator
        Draws the orders to try.
    too_few
        Returns the message for a label with fewer groups than parts, given the label and its number of groups.

    Returns
    -------
    ndarray of shape (n,), int8
        Part of each sample. Each part has a group of each class.

    Raises
    ------
    UsageError
        If a class has fewer groups than parts.
    """
    class_of_group = majority_labels(groups, labels)
    sizes = np.bincount(groups, minlength=len(class_of_group))
    part_of_group = np.zeros(len(class_of_group), np.int8)
    for label in np.unique(class_of_group):
        members = np.flatnonzero(class_of_group == label)
        if len(members) < len(fractions):
            raise UsageError(too_few(int(label), len(members)))
        part_of_group[members] = _best_draw(sizes[members], np.array(fractions), generator)
    return part_of_group[groups]


def _best_draw(
    sizes: NDArray[np.int64], fractions: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.int8]:
    """Try random orders of the groups and keep the assignment closest to the wanted fractions."""
    num_draws = int(np.clip(_DRAW_BUDGET // len(sizes), 1, _MAX_DRAWS))
    best_cost, best = np.inf, np.zeros(len(sizes), np.int8)
    for _ in range(num_draws):
        parts = _fill_parts(sizes, fractions, generator.permutation(len(sizes)))
        of_images = np.bincount(parts, sizes, len(fractions)) / sizes.sum()
        of_groups = np.bincount(parts, minlength=len(fractions)) / len(sizes)
        cost = float(np.abs(of_images - fractions).sum() + np.abs(of_groups - fractions).sum())
        if cost < best_cost:
            best_cost, best = cost, parts
    return best


def _fill_parts(sizes: NDArray[np.int64], fractions: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.int8]:
    """Assign each group in turn to the part that lacks most images; no part stays empty."""
    lacking = (fractions * sizes.sum()).tolist()
    parts = np.zeros(len(sizes), np.int8)
    empty = set(range(len(fractions)))
    for position, group in enumerate(order.tolist()):
        if len(order) - position > len(empty):
            part = lacking.index(max(lacking))
        else:
            part = max(sorted(empty), key=lacking.__getitem__)
        parts[group] = part
        lacking[part] -= int(sizes[group])
        empty.discard(part)
    return parts
