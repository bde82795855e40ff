"""What is wrong with a table that a user wrote: gathered cell by cell, told in one message."""

from __future__ import annotations

from collections import Counter

from leukemia_data.errors import SourceError

_MAX_PLACES = 5
_MAX_SHOWN = 80


def shown(text: str) -> str:
    """A cell's text for a message: quoted, with escapes for what is no visible letter, and cut where it is long."""
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")


class TableProblems:
    """Problems of one table, grouped by what is wrong, each with the lines it is found in.

    Parameters
    ----------
    table
        The file or its address, for the message.

    Attributes
    ----------
    count
        How many were told.
    """

    def __init__(self, table: object) -> None:
        self._table = table
        self._places: dict[str, list[str]] = {}
        self._counts = Counter[str]()
        self.count = 0

    def tell(self, what: str, line: int, detail: str = "") -> None:
        """Add one problem.

        Parameters
        ----------
        what
            The column and what is wrong, in words that are the same for every such cell; and what to do.
        line
            Line of the file on which the row starts, counted from 1.
        detail
            What this cell holds, short and on one line (see :func:`shown`).
        """
        self.count += 1
        self._counts[what] += 1
        if self._counts[what] <= _MAX_PLACES:
            self._places.setdefault(what, []).append(f"line {line} ({detail})" if detail else f"line {line}")

    def raise_any(self, cure: str = "") -> None:
        """Raise all problems at once, if there is one; `cure` ends the message.

        Raises
        ------
        SourceError
            With the table's name and the first few lines of every kind of problem.
        """
        if not self._places:
            return
        kinds = "; ".join(self._kind(what) for what in self._places)
        counted = "1 problem" if self.count == 1 else f"{self.count:,} problems"
        raise SourceError(f"{self._table}: {counted}: {kinds}" + (f"; {cure}" if cure else ""))

    def _kind(self, what: str) -> str:
        num_more = self._counts[what] - len(self._places[what])
        return f"{what}: {', '.join(self._places[what])}" + (f" (and {num_more:,} more)" if num_more else "")
