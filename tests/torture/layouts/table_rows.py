"""What the rows of a table say: class, subject and split of each image, and how each is written in its cell."""

from __future__ import annotations

from .draft import Draft
from .words import CLASS_NAMES, SPLIT_WORDS, person_name

Columns = dict[str, list[str]]
"""Cells of a table by the title of their column."""

PLAIN_LABELS = frozenset({"label", "Label", "class"})
PLAIN_SUBJECTS = frozenset({"none", "subject", "patient_id"})
PLAIN_SPLIT_TITLES = frozenset({"none", "split", "Split", "set"})
PLAIN_SPLIT_WORDS = frozenset({"train val test", "upper", "long"})


def draw_classes(draft: Draft) -> list[str]:
    """Classes of a table, as the truth calls them."""
    labels = draft.pick("labels")
    names = draft.some(CLASS_NAMES[draft.pick("classes")], 2, 5)
    num = {"0 and 1": 2, "numbers": max(3, len(names)), "floats": len(names)}.get(labels, len(names))
    if labels in ("0 and 1", "numbers", "floats"):
        draft.aliases |= {str(number): (f"{number}.0",) for number in range(num)}
        return [str(number) for number in range(num)]
    draft.aliases |= {name: (name.lower(),) for name in names if name.lower() in ("hem", "all")}
    return names


def label_columns(draft: Draft, classes: list[str], truth: list[str | None]) -> Columns:
    """Columns that tell the class, for rows with this truth."""
    labels = draft.choices["labels"]
    if labels == "none":
        draft.options["label_column"] = "none"
        return {}
    if labels == "one-hot":
        draft.doubt("one-hot columns")
        draft.options["label_column"] = ",".join(classes)
        return {name: [str(int(name == true)) for true in truth] for name in classes}
    title = draft.pick("label title")
    draft.options["label_column"] = title
    if title not in PLAIN_LABELS:
        draft.doubt(f"label column {title}")
    cells = [f"{true}.0" if labels == "floats" else f"{true}" for true in truth]
    return {title: _in_two_cases(draft, classes, cells) if labels == "names in two cases" else cells}


def hide_some_labels(draft: Draft, truth: list[str | None], columns: Columns) -> list[str | None]:
    """Truth without the labels of a few rows, of which the table's cells now say that they are unknown."""
    title = draft.options["label_column"]
    if title not in columns or draft.pick("unknown labels") == "none":
        return truth
    unknown = draft.choices["unknown labels"]
    if unknown != "empty":
        draft.doubt(f"label {unknown}")
        draft.refusable_by += [repr(unknown), f" {unknown}"]
    hidden = set(draft.rng.sample(range(len(truth)), max(1, len(truth) // 8)))
    cells = columns[str(title)]
    columns[str(title)] = [
        ("" if unknown == "empty" else unknown) if position in hidden else cell for position, cell in enumerate(cells)
    ]
    return [None if position in hidden else true for position, true in enumerate(truth)]


def draw_subjects(draft: Draft, truth: list[str | None]) -> list[str | None]:
    """Subject of each row: of one class each, or of several."""
    if draft.pick("subject title") == "none":
        return [None] * len(truth)
    have = draft.pick("persons have")
    if have == "several classes":
        draft.doubt("subjects of several classes")
        return [person_name("case_0012", draft.rng.randrange(6)) for _ in truth]
    order = sorted({true or "" for true in truth})
    return [person_name("case_0012", 4 * order.index(true or "") + draft.rng.randrange(3)) for true in truth]


def subject_column(draft: Draft, subjects: list[str | None]) -> Columns:
    """Column of the subjects; None is written as the answer says."""
    title = draft.choices["subject title"]
    if title == "none":
        return {}
    draft.options["subject_column"] = title
    if title not in PLAIN_SUBJECTS:
        draft.doubt(f"subject column {title}")
    draft.are_subjects_given = title == "subject"
    text = "NA" if draft.choices["unknown subjects"] == "NA" else ""
    return {title: [subject or text for subject in subjects]}


def hide_some_subjects(draft: Draft, subjects: list[str | None]) -> list[str | None]:
    """Subjects without those of a few rows, where the table does not know them."""
    if draft.choices["subject title"] == "none" or draft.pick("unknown subjects") == "none":
        return subjects
    if draft.choices["unknown subjects"] == "NA":
        draft.doubt("subject NA")
        draft.refusable_by += ["'NA'", " NA"]
    hidden = set(draft.rng.sample(range(len(subjects)), 3))
    return [None if position in hidden else subject for position, subject in enumerate(subjects)]


def draw_splits(draft: Draft, subjects: list[str | None]) -> tuple[Columns, list[str | None]]:
    """Column of the splits, and the split of each row: one for all rows of a subject."""
    title = draft.pick("split title")
    if title == "none":
        return {}, [None] * len(subjects)
    words = draft.pick("split words")
    draft.options["split_column"] = title
    if title not in PLAIN_SPLIT_TITLES or words not in PLAIN_SPLIT_WORDS:
        draft.doubt(f"split column {title}: {words}")
    pairs = SPLIT_WORDS[words]
    drawn: dict[str, int] = {}
    positions = [
        position % len(pairs) if subject is None else drawn.setdefault(subject, len(drawn) % len(pairs))
        for position, subject in enumerate(subjects)
    ]
    return {title: [pairs[p][0] for p in positions]}, [pairs[p][1] for p in positions]


def more_columns(draft: Draft, num_rows: int) -> Columns:
    """Columns that are neither label nor subject nor split, though some look like it."""
    rng, answer = draft.rng, draft.pick("more columns")
    has_usual_label = draft.options.get("label_column") in PLAIN_LABELS
    if answer in ("sex", "scanner", "quality") and not has_usual_label:
        draft.doubt(f"column {answer} could be the label")
    two = {"sex": ("f", "m"), "scanner": ("A", "B"), "quality": ("good", "bad")}.get(answer)
    if two:
        return {answer: [rng.choice(two) for _ in range(num_rows)]}
    if answer == "width and height":
        return {"width": ["224"] * num_rows, "height": [str(rng.randint(220, 230)) for _ in range(num_rows)]}
    if answer == "running number":
        return {"": [str(number) for number in range(num_rows)]}
    if answer == "comment":
        return {"comment": [rng.choice(("", "smudged; check", 'so-called "blast"', "a, b")) for _ in range(num_rows)]}
    return {}


def _in_two_cases(draft: Draft, classes: list[str], cells: list[str]) -> list[str]:
    """Every second cell of the first class that can be written in another case is."""
    name = next((name for name in classes if name.swapcase() != name), None)
    if name is None:
        return cells
    other = name.swapcase()
    draft.doubt(f"{name} and {other}")
    draft.aliases[name] = (name.lower(), other)
    draft.refusable_by += [name, other]
    draft.options["merge"] = ((name, (name, other)),)
    return [other if cell == name and number % 2 else cell for number, cell in enumerate(cells)]
