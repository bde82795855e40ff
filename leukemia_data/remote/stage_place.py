"""Where the stage is: the folder that a system has for what a user's programs may make again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

STAGE_VARIABLE = "LDATA_STAGE"
_OWN_FOLDER = "leukemia-cells"


def default_stage_dir(environment: Mapping[str, str], platform: str, home: Path) -> Path:
    """Folder of the stage where the user names none.

    Parameters
    ----------
    environment
        Variables of the process; ``LDATA_STAGE`` decides.
    platform
        As ``sys.platform`` tells it.
    home
        The user's home.

    Examples
    --------
    >>> default_stage_dir({}, "linux", Path("/home/ada")).as_posix()
    '/home/ada/.cache/leukemia-cells/stage'
    """
    if environment.get(STAGE_VARIABLE):
        return Path(environment[STAGE_VARIABLE])
    if platform == "win32":
        base = Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    return base / _OWN_FOLDER / "stage"
