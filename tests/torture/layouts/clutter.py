"""What lies about among the cells: system folders, the programs' own output, masks, strays, texts, links."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .draft import Draft
from .layout import Cell
from .words import CONTAINERS

DEEP = 1_200


def add_clutter(draft: Draft) -> None:
    """Draw clutter into a draft that has its cells."""
    add_links(draft)
    stray = draft.pick("stray")
    impossible = [] if _container(draft) else ["mask tree"]
    if len(draft.sources) > 1 or stray != "none":
        impossible.append("label table")
    _ADDERS[draft.pick("clutter", unless=impossible)](draft)
    if stray != "none":
        _add_stray(draft, stray)


def add_links(draft: Draft) -> None:
    """Draw links: those that lead in a circle, or out of the given folders."""
    match draft.pick("links"):
        case "in a circle":
            leaf = draft.rng.choice(draft.leaves())
            draft.links[f"{leaf}/up"] = next(s for s in draft.sources if f"{leaf}/".startswith(f"{s}/"))
        case "to a folder elsewhere":
            leaves = [leaf for leaf in draft.leaves() if leaf not in draft.sources]
            draft.links |= dict.fromkeys(draft.some(leaves, 1, 1), "elsewhere/0001")
        case "to files elsewhere":
            for number, cell in enumerate(draft.rng.sample(draft.cells, 2)):
                draft.links[cell.path] = f"elsewhere/{number}"


def _nothing(draft: Draft) -> None:
    pass


def _add_system_folders(draft: Draft) -> None:
    """Thumbnails and copies that Synology, Windows, macOS, git and Jupyter leave."""
    leaves, folders = draft.leaves(), draft.folders()
    leaf, folder, root = draft.rng.choice(leaves), draft.rng.choice(folders), draft.sources[0]
    name = next(cell.path.rpartition("/")[2] for cell in draft.cells if cell.path.rpartition("/")[0] == leaf)
    draft.passed_over += draft.some(
        [
            f"{leaf}/@eaDir/{name}/SYNOPHOTO_THUMB_M.jpg",
            f"{root}/@eaDir/{name}@SynoEAStream.png",
            f"{root}/lost+found/{name}",
            f"{folder}/$RECYCLE.BIN/S-1-5-21/$R{name}",
            f"{root}/__MACOSX/{leaf.rpartition('/')[2]}/._{name}",
            f"{leaf}/__MACOSX/{name}",
            f"{root}/.git/objects/{name}",
            f"{folder}/.ipynb_checkpoints/{name}",
            f"{root}/.Trash-1000/files/{name}",
        ],
        1,
        3,
    )
    draft.files[f"{leaf}/Thumbs.db"] = b"\xd0\xcf\x11\xe0"


def _add_dot_files(draft: Draft) -> None:
    for cell in draft.rng.sample(draft.cells, 3):
        folder, _, name = cell.path.rpartition("/")
        draft.passed_over.append(f"{folder}/._{name}")
    draft.passed_over.append(f"{draft.sources[0]}/.thumbnails/1.png")
    draft.files[f"{draft.sources[0]}/.DS_Store"] = b"\x00\x00\x00\x01Bud1"


def _add_own_run(draft: Draft) -> None:
    """A run's folder where ltrain puts it when it is started in the folder of cells."""
    run = f"{draft.sources[0]}/runs/{draft.rng.choice(('resnet18-128px-subject-seed0', 'trial', 'test'))}"
    known = {"format": "leukemia-cells run", "format_version": 4, "model": "resnet18"}
    draft.files |= {
        f"{run}/run.json": json.dumps(known).encode(),
        f"{run}/split.csv": b"id,subject,label,split\n1.png,,hem,train\n",
        f"{run}/history.csv": b"epoch,train_loss,valid_loss\n1,0.7,0.7\n",
        f"{run}/augment.toml": b"",
        f"{run}/final.safetensors": b"\x02\0\0\0\0\0\0\0{}",
        f"{run}/test/results.json": b"{}",
        f"{run}/test/summary.md": b"# Results\n",
        f"{run}/test/predictions.csv": b"id,label,predicted\n1.png,0,0\n",
    }
    draft.passed_over += [f"{run}/history.png"]
    draft.passed_over += [f"{run}/{part}/{name}.png" for part in ("valid", "test") for name in ("confusion", "roc")]


def _add_own_cache(draft: Draft) -> None:
    cache = f"{draft.sources[0]}/cache/cells/128-0123456789ab"
    draft.files[f"{cache}/manifest.json"] = b'{"format": "leukemia-cells"}'
    draft.files[f"{cache}/shard-0a1b2c.h5"] = b"\x89HDF\r\n\x1a\n"


def _add_texts(draft: Draft) -> None:
    for folder in draft.some(draft.folders(), 1, 4):
        draft.files[f"{folder}/{draft.rng.choice(('README.md', 'notes.txt', 'LICENSE', 'boxes.xml'))}"] = b"text\n"


def _add_other_table(draft: Draft) -> None:
    folder = draft.rng.choice(draft.folders())
    draft.files[f"{folder}/log.csv"] = b"epoch,loss,accuracy\n1,0.7,0.5\n2,0.6,0.6\n"


def _add_label_table(draft: Draft) -> None:
    """A table that says what the folders say."""
    root = draft.sources[0]
    rows = [f'"{cell.path.removeprefix(root + "/")}","{cell.class_name}"' for cell in draft.cells if cell.class_name]
    draft.files[f"{root}/labels.csv"] = "\n".join(["Path,label", *rows, ""]).encode()
    draft.doubt("a table beside folders")


def _add_mask_folders(draft: Draft) -> None:
    word = draft.rng.choice(("masks", "mask", "Masks", "segmentation_masks"))
    chosen = set(draft.some(draft.leaves(), 1, 100))
    _exclude_doubtful(draft, [f"{f}/{word}/{n}" for f, n in _split_paths(draft.cells) if f in chosen], "mask folders")


def _add_mask_files(draft: Draft) -> None:
    end = draft.rng.choice(("_mask", "-mask", "_Mask", "_seg_mask"))
    paths = [f"{f}/{_stem(n)}{end}.png" for f, n in _split_paths(draft.cells)]
    _exclude_doubtful(draft, paths, "mask files")


def _add_mask_tree(draft: Draft) -> None:
    """The folders of cells once more below ``masks``, beside the container of the cells."""
    paths = [path.replace(_container(draft), "/masks/", 1) for path in (cell.path for cell in draft.cells)]
    _exclude_doubtful(draft, paths, "a tree of masks")


def _add_thumbnails(draft: Draft) -> None:
    leaf = draft.rng.choice(draft.leaves())
    word = draft.rng.choice(("thumbs", "thumbnails"))
    _exclude_doubtful(draft, [f"{leaf}/{word}/{n}" for f, n in _split_paths(draft.cells) if f == leaf], "thumbnails")


def _add_empty_folders(draft: Draft) -> None:
    draft.empty_folders += [f"{draft.rng.choice(draft.folders())}/{name}" for name in ("empty", "test_new")]


def _add_deep_empty_folders(draft: Draft) -> None:
    # A path may have 4,096 bytes: below deep wrappers there is no room for as many again.
    root = draft.sources[0] if draft.choices.get("wrappers") != "1,200" else "given"
    draft.empty_folders.append(root + "/e" * DEEP)


_ADDERS = {
    "none": _nothing,
    "system folders": _add_system_folders,
    "dot files": _add_dot_files,
    "own run": _add_own_run,
    "own cache": _add_own_cache,
    "texts": _add_texts,
    "other table": _add_other_table,
    "label table": _add_label_table,
    "mask folders": _add_mask_folders,
    "mask files": _add_mask_files,
    "mask tree": _add_mask_tree,
    "thumbnails": _add_thumbnails,
    "empty folders": _add_empty_folders,
    "deep empty folders": _add_deep_empty_folders,
}


def _exclude_doubtful(draft: Draft, paths: Sequence[str], why: str) -> None:
    draft.exclude(paths)
    draft.doubt(why)


def _add_stray(draft: Draft, where: str) -> None:
    """A picture that lies above the level of the classes."""
    folder = draft.sources[0]
    if where == "beside the classes":
        folder = draft.rng.choice(_folders_of_classes(draft)) or folder
    names = draft.some(("overview.png", "figure1.jpg", "preview.png", "Übersicht.tif", "DSC_0001.JPG"), 1, 2)
    draft.exclude(f"{folder}/{name}" for name in names)
    draft.refusable_by += names
    draft.doubt("stray pictures")


def _folders_of_classes(draft: Draft) -> list[str]:
    """Folders that hold class folders and no test set, which may have images without a class."""
    level = draft.options.get("class_level")
    if not isinstance(level, int) or draft.choices["kind"] != "tree":
        return [draft.sources[0]]
    found = set()
    for cell in draft.cells:
        source = next(source for source in draft.sources if cell.path.startswith(f"{source}/"))
        if cell.class_name is not None and cell.split != "test":
            depth = source.count("/") + level
            found.add("/".join(cell.path.split("/")[:depth]))
    return sorted(found) or [draft.sources[0]]


def _container(draft: Draft) -> str:
    """The folder that holds all classes and has a container's name, with slashes; empty where there is none."""
    if draft.choices.get("container") != "above" or len(draft.sources) > 1 or draft.choices["wrappers"] == "1,200":
        return ""
    level = draft.options["class_level"]
    assert isinstance(level, int)
    name = draft.cells[0].path.split("/")[level + draft.sources[0].count("/") - 1]
    return f"/{name}/" if name in CONTAINERS and draft.cells[0].path.count(f"/{name}/") == 1 else ""


def _split_paths(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    return [(folder, name) for folder, _, name in (cell.path.rpartition("/") for cell in cells)]


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
