"""How a finished network is judged, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leukemia_data.errors import UsageError
from leukemia_models.batchnorm.batchnorm_mode import AUTO, require_batchnorm_mode
from leukemia_models.inference.tta import NO_TTA, Tta


@dataclass(frozen=True, kw_only=True)
class JudgingSettings:
    """How a finished network is judged.

    Parameters
    ----------
    tta : Tta
        Views of each image whose answers are averaged.
    batchnorm : {"auto", "running", "reestimated"}
        Which BatchNorm statistics it answers with; auto re-estimates them where that helps.

    Raises
    ------
    UsageError
        If the mode is unknown.
    """

    tta: Tta = NO_TTA
    batchnorm: str = AUTO

    def __post_init__(self) -> None:
        require_batchnorm_mode(self.batchnorm)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them."""
        return {"tta": self.tta.to_dict(), "batchnorm": self.batchnorm}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JudgingSettings:
        """Return what :meth:`to_dict` wrote; what is missing (in runs of earlier versions) has its default.

        Raises
        ------
        UsageError
            If the values are something else, as in a damaged file.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"judging settings are stored by name, not as {values!r:.60}")
        tta = Tta.from_dict(values["tta"]) if "tta" in values else NO_TTA
        return cls(tta=tta, batchnorm=values.get("batchnorm", AUTO))
