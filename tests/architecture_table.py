"""The tables of rooms and modules in ARCHITECTURE.md, whose last column lists the modules of the tree.

``python tests/architecture_table.py`` updates it after modules were added, renamed or merged.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
PACKAGES = ("leukemia_data", "leukemia_models", "cli")
_ROW = re.compile(
    r"^\| `(?P<room>(?:leukemia_data|leukemia_models|cli)(?:/\w+)?/)` \| (?P<what>[^|]+) \|[^|]*\|$", re.M
)


def modules_by_room(root: Path = ROOT) -> dict[str, list[str]]:
    """Return the names of the modules that lie in each folder of the packages, such as ``leukemia_data/files/``."""
    rooms: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            if not path.name.startswith("__"):
                rooms.setdefault(f"{path.parent.relative_to(root).as_posix()}/", []).append(path.stem)
    return rooms


def rooms_of_page(text: str) -> list[str]:
    """Return the rooms that have a row, in the order of the page."""
    return [row["room"] for row in _ROW.finditer(text)]


def with_modules(text: str, rooms: dict[str, list[str]]) -> str:
    """Return the page with each room's row listing its modules."""

    def row(found: re.Match[str]) -> str:
        names = ", ".join(f"`{name}`" for name in rooms.get(found["room"], []))
        return f"| `{found['room']}` | {found['what']} | {names} |"

    return _ROW.sub(row, text)


if __name__ == "__main__":
    PAGE.write_text(with_modules(PAGE.read_text(encoding="utf-8"), modules_by_room()), encoding="utf-8")
