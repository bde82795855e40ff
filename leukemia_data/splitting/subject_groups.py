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
    parents: dict[tuple[str, bytes], tuple[str, bytes]] = {}

    def find(node: tuple[str, bytes]) -> tuple[str, bytes]:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    nodes = [
        (("subject", subject) if subject else ("sample", str(n).encode()), ("pixels", digest.tobytes()))
        for n, (subject, digest) in enumerate(zip(table.subjects.tolist(), table.pixel_digests, strict=True))
    ]
    for owner, pixels in nodes:
        parents[find(owner)] = find(pixels)
    numbers: dict[tuple[str, bytes], int] = {}
    return np.array([numbers.setdefault(find(owner), len(numbers)) for owner, _ in nodes], np.int64)


def numbered_by_content(groups: NDArray[np.int64], table: SampleTable) -> NDArray[np.int64]:
    """Number groups by their smallest pixel digest, so that a split depends on the images, not on their file names.

    Parameters
    ----------
    groups
        Of shape (n,): any numbering of the groups.
    table
        The n samples.
    """
    digests = np.ascontiguousarray(table.pixel_digests).view(f"S{table.pixel_digests.shape[1]}").ravel()
    by_digest = np.argsort(digests, kind="stable")
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
