"""Trees with a folder for each class, somewhere between wrappers, splits, variants, sites and persons."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from .draft import Draft
from .file_names import FileNamer
from .tree_levels import Level, Step, class_levels, meaning, named, paths_below, person_level, subtype_level
from .words import (
    CLASS_NAMES,
    CONTAINERS,
    FOLDS,
    GROUPS,
    PLAIN_PERSONS,
    PLAIN_SPLITS,
    PLAIN_VARIANTS,
    SITES,
    SPLIT_WORDS,
    SUBTYPES,
    VARIANT_WORDS,
    WRAPPERS,
    YEARS,
)

DEEP = 1_200
_PLAIN_PAIRS = ({"split", "variant"}, {"split", "container"}, {"split", "leaf"})
"""Kinds of folders that nobody takes for each other where both have usual names and the classes are below."""


def compose_tree(draft: Draft) -> None:
    """Draw a tree into an empty draft."""
    given_as = draft.pick("given as")
    upper = _upper_levels(draft, given_as)
    lower = _lower_levels(draft, upper)
    classes = _classes(draft, num_extra=len(upper) + len(lower))
    container = draft.pick("container")
    word = draft.rng.choice(CONTAINERS)
    levels = [
        *upper,
        *([named("container", [word])] if container == "above" else []),
        *class_levels(classes, _groups(draft, classes)),
        *lower,
        *_subtypes(draft, classes),
        *([named("leaf", [word])] if container == "leaf" else []),
    ]
    _doubt_of_levels(draft, levels)
    _fill(draft, _wrapped(draft, given_as), levels, _respelled(draft, upper, classes))
    _options(draft)


def _upper_levels(draft: Draft, given_as: str) -> list[Level]:
    """Levels above the classes, from the top."""
    levels = []
    if given_as == "roots of one name":
        inside = draft.pick("roots of one name lie in")
        levels.append(named("root", SITES) if inside == "sites" else _split_level(draft))
        draft.doubt("roots have one name")
        draft.refusable_by += [step.name for step in levels[0].steps({})]
    elif given_as == "roots with other names":
        levels.append(named("root", ["north", "south"]))
        draft.doubt("roots of other names may be classes or sites")
    elif given_as == "split roots":
        levels.append(_split_level(draft))
    top = []
    if not any(level.role == "split" for level in levels) and draft.pick("split") == "above":
        top.append(_split_level(draft))
    if draft.pick("variant") == "above":
        top.append(_variant_level(draft))
    match draft.pick("above"):
        case "sites":
            top.append(named("site", SITES))
        case "years":
            top.append(named("site", YEARS))
        case "folds":
            top.append(named("site", FOLDS))
    draft.rng.shuffle(top)
    levels += top
    if draft.pick("people") == "above":
        levels.append(_people(draft, levels))
    return levels


def _lower_levels(draft: Draft, upper: Sequence[Level]) -> list[Level]:
    """Levels between class and image that mean something."""
    levels = []
    if draft.choices.get("split") == "below":
        levels.append(_split_level(draft))
    if draft.choices["variant"] == "below":
        levels.append(_variant_level(draft))
    if draft.choices["people"].startswith("below"):
        levels.append(_people(draft, upper))
    return levels


def _split_level(draft: Draft) -> Level:
    words = draft.pick("split words")
    if words not in PLAIN_SPLITS:
        draft.doubt(f"split words: {words}")
    return meaning("split", SPLIT_WORDS[words])


def _variant_level(draft: Draft) -> Level:
    words = draft.pick("variant words")
    if words not in PLAIN_VARIANTS:
        draft.doubt(f"variant words: {words}")
    return named("variant", VARIANT_WORDS[words])


def _people(draft: Draft, upper: Sequence[Level]) -> Level:
    form, place = draft.pick("person form"), draft.choices["people"]
    if form not in PLAIN_PERSONS or place != "below":
        draft.doubt(f"persons {place}: {form}")
    roles = [level.role for level in upper if level.role in ("split", "site", "root")]
    roles += ["split"] * (draft.choices.get("split") == "below") + ["class"] * (place == "below")
    return person_level(form, draft.rng.randint(2, 3), differ_by=roles)


def _classes(draft: Draft, num_extra: int) -> list[tuple[str, str]]:
    """Folder names and classes; the class is the folder's name in composed form."""
    answer = draft.pick("classes")
    if answer in ("like people", "like splits"):
        draft.doubt(f"classes: {answer}")
    names = draft.some(CLASS_NAMES[answer], 2, 4 if num_extra >= 2 else 8)
    match draft.pick("class spelling"):
        case "upper":
            names = [name.upper() for name in names]
        case "lower":
            names = [name.lower() for name in names]
        case "nfd":
            names = [unicodedata.normalize("NFD", name) for name in names]
    draft.aliases |= {name: (name.lower(),) for name in names if name.lower() in ("hem", "all")}
    return [(name, unicodedata.normalize("NFC", name)) for name in names]


def _groups(draft: Draft, classes: Sequence[tuple[str, str]]) -> Sequence[str]:
    draft.pick("inner", unless=("groups", "groups and subtypes") if len(classes) < 3 else ())
    free = [name for name in GROUPS if name not in {meant.lower() for _, meant in classes}]
    return free[:2] if "groups" in draft.choices["inner"] else ()


def _subtypes(draft: Draft, classes: Sequence[tuple[str, str]]) -> list[Level]:
    if "subtypes" not in draft.choices["inner"]:
        return []
    taken = {meant.lower() for _, meant in classes}
    names = [name for name in SUBTYPES if name.lower() not in taken]
    return [subtype_level(names, only_first=draft.choices["inner"] == "some subtypes")]


def _doubt_of_levels(draft: Draft, levels: Sequence[Level]) -> None:
    """Several kinds of levels at once, and levels of unknown names, can be read in several ways."""
    roles = [level.role for level in levels]
    places = (draft.choices.get("split"), draft.choices["variant"])
    for role, why in (("site", "sites may be classes"), ("group", "groups"), ("subtype", "subtypes may be classes")):
        if role in roles:
            draft.doubt(why)
    kinds = [role for role in roles if role in ("split", "variant", "person", "container", "leaf")]
    if len(kinds) > 1 and (set(kinds) not in _PLAIN_PAIRS or "below" in places):
        draft.doubt("several kinds of folders")


def _respelled(draft: Draft, upper: Sequence[Level], classes: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Class folders that have another spelling below the last folder of the first level: old name to new."""
    accented = [name for name, meant in classes if unicodedata.normalize("NFD", meant) != meant]
    cased = [name for name, _ in classes if name.swapcase() != name]
    impossible = ([] if cased else ["case differs"]) + ([] if accented else ["nfc and nfd"])
    has_several = bool(upper) and upper[0].role != "person" and len(upper[0].steps({})) > 1
    if not has_several:
        return {}
    match draft.pick("spelling across folders", unless=impossible):
        case "case differs":
            new = {cased[0]: cased[0].swapcase()}
            draft.options["merge"] = ((cased[0], (cased[0], cased[0].swapcase())),)
        case "nfc and nfd":
            composed = unicodedata.normalize("NFC", accented[0])
            is_composed = composed == accented[0]
            new = {accented[0]: unicodedata.normalize("NFD", composed) if is_composed else composed}
        case _:
            return {}
    for old, name in new.items():
        draft.doubt(f"class folders {old!r} and {name!r}")
        draft.aliases[unicodedata.normalize("NFC", old)] = (old, name, old.lower())
        draft.refusable_by += [old, name]
    return new


def _wrapped(draft: Draft, given_as: str) -> str:
    """Wrappers from the layout's folder down, with ``/`` at the end."""
    answer = draft.pick("wrappers")
    if answer == "1,200":
        return "given/" + "d/" * DEEP
    return "/".join(["given", *draft.rng.sample(WRAPPERS, int(answer))]) + "/"


def _fill(draft: Draft, prefix: str, levels: Sequence[Level], respelled: dict[str, str]) -> None:
    """Write the cells of every way down, and the sources above them."""
    ways = _with_gaps(draft, list(paths_below(levels)))
    flat_test = _flat_test(draft, levels)
    given_as, roles = draft.choices["given as"], [level.role for level in levels]
    sources: dict[str, None] = {}
    target = draft.rng.randint(20, 60) if len(prefix) < DEEP else 8
    num_each = max(1, min(12, target // len(ways)))
    namer = FileNamer(draft)
    for way in ways:
        folders = [_folder_name(way, role, respelled, roles[0]) for role in roles]
        if given_as == "roots of one name":
            folders.insert(1, "images")
        if flat_test and way["split"].meaning == "test":
            folders = folders[: roles.index("class") + (given_as == "roots of one name")]
        num_root = {"one folder": 0, "roots of one name": 2}.get(given_as, 1)
        sources["".join([prefix, *(f"{name}/" for name in folders[:num_root])]) if num_root else "given/"] = None
        folder = prefix + "".join(f"{name}/" for name in folders if name)
        for _ in range(num_each if not flat_test else min(3, num_each)):
            draft.cells.append(namer.cell(folder, way, is_labelled=not (flat_test and way["split"].meaning == "test")))
    draft.sources = [source.rstrip("/") for source in sources]
    if flat_test:
        draft.doubt("test images without class folders")
        draft.refusable_by += [cell.path.rpartition("/")[2] for cell in draft.cells if cell.class_name is None]


def _folder_name(way: dict[str, Step], role: str, respelled: dict[str, str], first_role: str) -> str:
    name = way[role].name
    last = {"split", "site", "variant", "root"} & {first_role}
    return respelled.get(name, name) if role == "class" and last and way[first_role].position == 1 else name


def _flat_test(draft: Draft, levels: Sequence[Level]) -> bool:
    """Whether the test images lie in no class folders."""
    roles = [level.role for level in levels]
    splits = [step.meaning for level in levels if level.role == "split" for step in level.steps({})]
    is_possible = {"test", "train"} <= set(splits) and roles.index("split") < roles.index("class")
    if not is_possible or {"person", "group", "variant", "site", "subtype"} & set(roles):
        return False
    return draft.pick("test part") == "without class folders"


def _with_gaps(draft: Draft, ways: list[dict[str, Step]]) -> list[dict[str, Step]]:
    """Some ways left out, but none of the last that lead to a class, a split, or the first folder of a level."""
    if draft.pick("gaps") == "none":
        return ways
    kept = list(ways)
    for way in draft.rng.sample(ways, len(ways) // 4):
        rest = [other for other in kept if other is not way]
        if all(any(other[role].name == step.name for other in rest) for role, step in way.items()):
            kept = rest
    if len(kept) < len(ways) and any(role in ways[0] for role in ("variant", "person", "site", "root")):
        draft.doubt("not every folder holds every class")
    return kept


def _options(draft: Draft) -> None:
    """What somebody says who knows the tree: on which level the classes are, and which folders are which split."""
    labelled = next(cell for cell in draft.cells if cell.class_name is not None)
    source = next(source for source in draft.sources if labelled.path.startswith(f"{source}/"))
    folders = labelled.path.removeprefix(f"{source}/").split("/")[:-1]
    spellings = [labelled.class_name or "", *draft.aliases.get(labelled.class_name or "", ())]
    levels = [n for n, name in enumerate(folders, 1) if unicodedata.normalize("NFC", name) in spellings]
    if levels:
        draft.options["class_level"] = levels[0]
    words = draft.choices.get("split words")
    if words:
        by_split: dict[str, tuple[str, ...]] = {}
        for name, split in SPLIT_WORDS[words]:
            by_split[split] = (*by_split.get(split, ()), name)
        draft.options["split_folders"] = tuple(by_split.items())
