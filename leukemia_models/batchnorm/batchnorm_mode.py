"""Names of the ways to choose the BatchNorm statistics that a finished network answers with."""

from __future__ import annotations

from leukemia_data.errors import UsageError

AUTO, RUNNING, REESTIMATED = "auto", "running", "reestimated"
BATCHNORM_MODES = (AUTO, RUNNING, REESTIMATED)


def require_batchnorm_mode(mode: str) -> None:
    """Refuse a mode that is not one of `BATCHNORM_MODES`.

    Raises
    ------
    UsageError
        With the known ones.
    """
    if mode not in BATCHNORM_MODES:
        raise UsageError(f"unknown BatchNorm mode {mode!r}; known modes: {', '.join(BATCHNORM_MODES)}")
