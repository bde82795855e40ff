"""Samples that must stay together: those of one subject, and those of subjects who share pixel-identical images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leukemia_data.samples.sample_table import SampleTable


def linked_groups(table: SampleTable) -> NDArray[np.int64]:
    """Number the groups of samples that must stay together: same subject, or same pixels, or linked by others.

    Returns
    -------
    ndarray of shape (n,), int64
        Group of each sample, numbered from 0 in the order of the samples.
    """
    owners = _owner_codes(table.subjects)
    pixels = digest_codes(table.pixel_digests)
    is_tie = np.bincount(pixels, minlength=1)[pixels] > 1
    owners = _joined(owners, _ties(owners[is_tie], pixels[is_tie]))
    _, firsts, group_N = np.unique(owners, return_index=True, return_inverse=True)
    number_of_group = np.empty(len(firsts), np.int64)
    number_of_group[np.argsort(firsts)] = np.arange(len(firsts))
    return number_of_group[group_N]


def text_codes(column: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Number the different texts of a column from 0; equal texts have equal numbers.

    Parameters
    ----------
    column : ndarray of shape (n,), bytes

    Returns
    -------
    ndarray of shape (n,), int64
    """
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


def _owner_codes(subjects: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """A number for each subject, and one for each sample of an unknown subject."""
    codes = text_codes(subjects)
    is_unknown = subjects == b""
    codes[is_unknown] = codes.max(initial=-1) + 1 + np.arange(is_unknown.sum())
    return codes


def _ties(owners: NDArray[np.int64], pixels: NDArray[np.int64]) -> list[list[int]]:
    """Pairs of different owners who have the same pixels: each with the owner of the next such sample."""
    order = np.lexsort((owners, pixels))
    owners, pixels = owners[order], pixels[order]
    is_pair = (pixels[1:] == pixels[:-1]) & (owners[1:] != owners[:-1])
    pairs: list[list[int]] = np.unique(np.stack((owners[:-1], owners[1:]), 1)[is_pair], axis=0).tolist()
    return pairs


def _joined(owners: NDArray[np.int64], ties: list[list[int]]) -> NDArray[np.int64]:
    """Owners by the number of one who stands for all that are tied to them, directly or through others."""
    parents = np.arange(owners.max(initial=-1) + 1).tolist()

    def find(node: int) -> int:
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for one, other in ties:
        parents[find(one)] = find(other)
    standing_for = np.arange(len(parents))
    tied = {owner for tie in ties for owner in tie}
    standing_for[list(tied)] = [find(owner) for owner in tied]
    return np.asarray(standing_for[owners], np.int64)


def numbered_by_content(groups: NDArray[np.int64], table: SampleTable) -> NDArray[np.int64]:
    """Number groups by their smallest pixel digest, so that a split depends on the images, not on their file names.

    Parameters
    ----------
    groups
        Of shape (n,): any numbering of the groups.
    table
        The n samples.
    """
    # As numbers of 64 bits that are ordered like the bytes.
    first_N, second_N = np.ascontiguousarray(table.pixel_digests).view(">u8").reshape(-1, 2).astype(np.uint64).T
    by_digest = np.lexsort((second_N, first_N))
    _, first_of_group, group_of = np.unique(groups[by_digest], return_index=True, return_inverse=True)
    number_of_group = np.argsort(np.argsort(first_of_group))
    numbered = np.empty_like(groups)
    numbered[by_digest] = number_of_group[group_of]
    return numbered


def majority_labels(groups: NDArray[np.int64], labels: NDArray[np.int16]) -> NDArray[np.int64]:
    """The most frequent label of each group; the lower one of equally frequent labels.

    Parameters
    ----------
    groups
        Of shape (n,): group of each sample, 0 ... g-1.
    labels
        Of shape (n,), none of them unknown.

    Returns
    -------
    ndarray of shape (g,), int64
    """
    counts = np.zeros((int(groups.max()) + 1, int(labels.max()) + 1), np.int64)
    np.add.at(counts, (groups, labels), 1)
    majority: NDArray[np.int64] = counts.argmax(axis=1)
    return majority
