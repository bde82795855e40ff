"""Trees of images with C-NMC's names, as they were published and as people sorted them anew."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from .draft import Draft
from .layout import Cell

PRELIMINARY, FINAL = "C-NMC_test_prelim_phase_data", "C-NMC_test_final_phase_data"
_SORTED = {
    "hem and all": (("hem", "hem", 6), ("all", "all", 8)),
    "agreeing folders": (("normal", "hem", 6), ("leukemia", "all", 8)),
    "refining folders": (("early", "all", 5), ("pre", "all", 6), ("pro", "all", 4)),
    "contradicting folders": (("normal", "hem", 6), ("normal", "all", 1), ("leukemia", "all", 8)),
    "set aside": (("hem", "hem", 6), ("all", "all", 6), ("artefact", "hem", 2), ("artefact", "all", 1)),
    "misplaced": (("hem", "hem", 6), ("hem", "all", 1), ("all", "all", 8)),
}
"""Folders with the class in the names of their images, and how many there are at least."""


def compose_cnmc(draft: Draft) -> None:
    """Draw a tree into an empty draft."""
    tree = draft.pick("tree of names")
    cells = _Cells(draft)
    draft.are_subjects_given = True
    match tree:
        case "tcia":
            root = "given/PKG - C-NMC 2019"
            cells.folds(f"{root}/C-NMC_training_data")
            cells.tests(root, f"{root}/{PRELIMINARY}", f"{root}/{PRELIMINARY}_labels.csv", f"{root}/{FINAL}")
            _merge_copies(draft, f"{root}/C-NMC_train_merged")
        case "kaggle":
            root = "given/C-NMC_Leukemia"
            cells.folds(f"{root}/training_data")
            valid = f"{root}/validation_data"
            cells.tests(
                valid, f"{valid}/{PRELIMINARY}", f"{valid}/{PRELIMINARY}_labels.csv", f"{root}/testing_data/{FINAL}"
            )
        case "prellberg":
            cells.folds("given/data")
            cells.tests("given/data", "given/data/phase2", "given/data/phase2.csv", "given/data/phase3")
        case "flat":
            cells.named(draft.rng.choice(("given", "given/cells")), (("", "hem", 6), ("", "all", 8)))
        case "splits":
            for split in ("train", "valid", "test"):
                cells.named(f"given/{split}", (("", "hem", 4), ("", "all", 4)), split=split)
        case _:
            cells.named("given", _SORTED[tree])
            _read_by_folder(draft, tree)


def _read_by_folder(draft: Draft, tree: str) -> None:
    """Where folders do not say what the names say, they are the truth; it has to be asked for where they contradict."""
    if tree == "hem and all":
        return
    draft.doubt(tree)
    if tree == "agreeing folders":
        draft.aliases |= {"hem": ("normal",), "all": ("leukemia",)}
        return
    draft.options["class_level"] = 1
    folders = [cell.path.split("/")[1] for cell in draft.cells]
    draft.cells = [Cell(c.path, f.lower(), c.subject) for c, f in zip(draft.cells, folders, strict=True)]
    draft.aliases |= {folder.lower(): (folder,) for folder in folders}
    if tree != "refining folders":
        draft.is_never_silent = True
        draft.refusable_by += [cell.path.rpartition("/")[2] for cell in draft.cells if _is_denied(cell)]


def _is_denied(cell: Cell) -> bool:
    """Whether an image's name says another class than its folder."""
    said = cell.path.rpartition(".")[0].rpartition("_")[2].lower()
    return {"normal": "hem", "leukemia": "all"}.get(cell.class_name or "", cell.class_name) != said


def _merge_copies(draft: Draft, folder: str) -> None:
    """The copies of the folds' images that some archives hold."""
    if draft.pick("merged copies") == "none":
        return
    for cell in draft.cells:
        if "/fold_" in cell.path:
            draft.passed_over.append(f"{folder}/{'/'.join(cell.path.split('/')[-2:])}")


class _Cells:
    """Writes cells with names that occur once."""

    def __init__(self, draft: Draft) -> None:
        self._draft, self._rng = draft, draft.rng
        self._photo = count(1)
        self._subject = {"hem": count(1), "all": count(1)}
        self._case = draft.pick("case of names")
        self._ending = ".png" if draft.pick("converted") == "to png" else ".bmp"

    def folds(self, folder: str) -> None:
        """Three folds with disjoint subjects."""
        for fold in range(3):
            self.named(f"{folder}/fold_{fold}", (("all", "all", 4), ("hem", "hem", 3)), split="train")

    def named(self, folder: str, groups: tuple[tuple[str, str, int], ...], split: str | None = None) -> None:
        """Groups of images: name of the folder, class, least number of images."""
        for name, class_name, least in groups:
            inner = name.upper() if self._case == "folders upper" else name
            place = f"{folder}/{inner}" if inner else folder
            for subject, stem in self._names(class_name, least):
                stem = stem.upper() if self._case == "upper" else stem
                self._draft.cells.append(Cell(f"{place}/{stem}{self._ending}", class_name, subject, split))

    def tests(self, above: str, preliminary: str, table: str, final: str) -> None:
        """The two test sets with numbers for names, and the label table of the first."""
        dialect = self._draft.pick("label table")
        names = [*self._names("hem", 3), *self._names("all", 4)]
        rows = []
        for number, (subject, stem) in enumerate(names, 1):
            is_told = dialect != "none"
            class_name = stem.rpartition("_")[2] if is_told else None
            path = f"{preliminary}/{number}{self._ending}"
            self._draft.cells.append(Cell(path, class_name, subject if is_told else None, "valid"))
            rows.append((f"{stem}.bmp", f"{number}.bmp", "1" if stem.endswith("all") else "0"))
        if dialect != "none":
            is_inside = self._draft.pick("label table lies") == "inside"
            place = f"{preliminary}/{table.rpartition('/')[2]}" if is_inside else table
            self._draft.files[place] = label_table(rows, dialect)
        self._draft.cells += [Cell(f"{final}/{number}{self._ending}", None, None, "test") for number in range(1, 5)]

    def _names(self, class_name: str, least: int) -> Iterator[tuple[str, str]]:
        """Subjects and stems of images' names, of one to three subjects."""
        num = least + self._rng.randint(0, 4)
        subjects = [f"{'H' * (class_name == 'hem')}{next(self._subject[class_name])}" for _ in range(2)]
        for number in range(num):
            subject = subjects[number % 2]
            yield subject, f"UID_{subject}_{next(self._photo)}_{number + 1}_{class_name}"


def label_table(rows: list[tuple[str, str, str]], dialect: str) -> bytes:
    """The published label table, as a spreadsheet or a script may have saved it again."""
    titles = ("Patient_ID", "new_names", "labels")
    separator = ";" if dialect == "semicolons" else ","
    encoding = {"utf-16": "utf-16", "bom": "utf-8-sig"}.get(dialect, "utf-8")
    if dialect == "titles in another case":
        titles = ("PATIENT_ID", " New_Names", "Labels ")
    if dialect == "names without endings":
        rows = [(name.removesuffix(".bmp"), new.removesuffix(".bmp"), label) for name, new, label in rows]
    if dialect == "floats":
        rows = [(name, new, f"{label}.0") for name, new, label in rows]
    if dialect == "blank rows":
        rows = [*rows, ("", "", "")]
    return "".join(separator.join(row) + "\r\n" for row in (titles, *rows)).encode(encoding)
