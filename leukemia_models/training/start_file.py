"""Files of weights to start from: checkpoints of this project, and networks of torchvision, timm and others.

Weights are taken by their names. What has another shape because the classes or the channels of the images differ is
drawn anew or adapted, everything else is refused; a :class:`StartReport` says what was done.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leukemia_data.errors import RunError, listed
from leukemia_models.training.checkpoint import FORMAT, Checkpoint, checkpoint_of
from leukemia_models.training.checkpoint_file import checkpoint_bytes, read_safetensors
from leukemia_models.training.training_plan import TORCH_SUFFIXES
from leukemia_models.training.weights import copy_weights

NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
"""Keys under which training programs store a network's tensors."""
PREFIXES = ("module.", "model.", "_orig_mod.", "network.", "net.", "backbone.", "encoder.")
MAX_LISTED = 3
MAX_IMAGE_CHANNELS = 16
MAX_IGNORED_SHARE = 0.2
"""Of the numbers in a file. A head for 1,000 classes has up to a tenth of them; with more it is of a deeper network."""


@dataclass(frozen=True, kw_only=True)
class StartReport:
    """What became of the tensors of a file.

    Parameters
    ----------
    origin : str
        Kind of file, such as ``a checkpoint of this project``.
    num_taken : int
        Tensors of the network that were copied as they are.
    adapted : tuple of str
        Tensors whose channels were changed.
    replaced : tuple of str
        Tensors of the network that are drawn from the seed instead.
    ignored : tuple of str
        Tensors of the file that the network has no use for.
    """

    origin: str
    num_taken: int
    adapted: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def text(self) -> str:
        """What was done, in a line."""
        parts = [f"{self.num_taken} tensors taken"]
        for word, names in (("adapted", self.adapted), ("drawn anew", self.replaced), ("ignored", self.ignored)):
            if names:
                parts.append(f"{word}: {listed(names, most=MAX_LISTED)}")
        return f"{self.origin}; {'; '.join(parts)}"


def load_start(
    model: nn.Module,
    path: Path,
    classes: Sequence[str] = (),
    require: Callable[[Checkpoint], None] | None = None,
    data: bytes | None = None,
) -> StartReport:
    """Copy the weights of a file into `model`, to start a training from them.

    Parameters
    ----------
    model : torch.nn.Module
        Freshly drawn.
    path : Path
        A checkpoint, whose weights for evaluation are used; or a network's tensors, as safetensors or as torch saves
        them. The latter are read without running any code that the file holds.
    classes : sequence of str
        Of the network. The head of a checkpoint for other classes is not used; for the same classes in another order
        its outputs are reordered.
    require : callable, optional
        Checks a checkpoint before anything is copied.
    data : bytes, optional
        The content of the file, where another machine has read it.

    Raises
    ------
    RunError
        If the file cannot be read, is damaged, has non-finite values, or is of another network; nothing is copied then.
    """
    if path.suffix.lower() in TORCH_SUFFIXES:
        tensors, origin = _pickled(path, checkpoint_bytes(path) if data is None else data)
        return _copy(model, _matching(tensors, model), path, origin)
    metadata, tensors = read_safetensors(path, data)
    if metadata.get("format") != FORMAT:
        return _copy(model, _matching(tensors, model), path, "tensors of another program")
    checkpoint = checkpoint_of(path, metadata, tensors)
    if require is not None:
        require(checkpoint)
    own, wanted = checkpoint.info.classes, tuple(classes) or checkpoint.info.classes
    origin, tensors = "a checkpoint of this project", checkpoint.model_state
    if own != wanted and sorted(own) == sorted(wanted):
        origin, tensors = f"{origin} for the same classes in another order", _reordered(model, tensors, own, wanted)
    elif own != wanted:
        return _copy(model, tensors, path, f"{origin} for other classes ({listed(own)})", with_head=False)
    return _copy(model, tensors, path, origin)


def _reordered(
    model: nn.Module, tensors: Mapping[str, Tensor], own: Sequence[str], wanted: Sequence[str]
) -> dict[str, Tensor]:
    """Return tensors with the outputs of the head in another order of the classes."""
    head, rows = f"{head_layer(model)}.", [own.index(name) for name in wanted]
    return {name: value[rows] if name.startswith(head) else value for name, value in tensors.items()}


def _pickled(path: Path, data: bytes) -> tuple[Mapping[str, Tensor], str]:
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RunError(
            f"{path} holds more than tensors, and code from files is never run ({str(error).splitlines()[0]:.150}). "
            "Save the network's state_dict() alone, best as .safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise RunError(f"{path} cannot be read as weights of torch: {error}"[:300]) from error
    place = ""
    while isinstance(content, Mapping) and not _is_state(content):
        key = next((name for name in NESTED if isinstance(content.get(name), Mapping)), None)
        if key is None:
            break
        content, place = content[key], f"{place}{key}"
    if not isinstance(content, Mapping) or not _is_state(content):
        raise RunError(f"{path} holds no network's tensors, at its top or in one of {listed(NESTED)}")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    return tensors, f"tensors of another program{f', in its {place}' if place else ''}"


def _is_state(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) and value.ndim for value in content.values())


def _matching(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return tensors without the prefixes of wrappers that most names have, if more names of the network are found."""
    expected = model.state_dict().keys()
    best = bare = dict(tensors)
    while prefix := next((each for each in PREFIXES if _is_usual(each, bare)), None):
        bare = {name.removeprefix(prefix): value for name, value in bare.items()}
        best = max(best, bare, key=lambda found: len(found.keys() & expected))
    return best


def _is_usual(prefix: str, names: Iterable[str]) -> bool:
    having = [name.startswith(prefix) for name in names]
    return sum(having) > len(having) / 2


def head_layer(model: nn.Module) -> str:
    """Return the name of a network's last layer with weights, which has an output for each class."""
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not layers:
        raise RunError("the network has no linear layer and no convolution to be its head")
    return str(layers[-1])


def _copy(
    model: nn.Module, found: Mapping[str, Tensor], path: Path, origin: str, *, with_head: bool = True
) -> StartReport:
    expected, head = model.state_dict(), f"{head_layer(model)}."
    complete, taken, adapted, replaced, problems = dict(expected), 0, [], [], []
    for name, own in expected.items():
        value = found.get(name)
        is_head = name.startswith(head)
        if value is not None and value.shape == own.shape and (with_head or not is_head):
            complete[name], taken = value, taken + 1
        elif is_head:
            replaced.append(name)
        elif value is not None and _differs_in_channels(value, own):
            complete[name] = _with_channels(value, own.shape[1])
            adapted.append(name)
        elif not name.endswith(".num_batches_tracked"):
            has = "missing" if value is None else f"{tuple(value.shape)} instead of {tuple(own.shape)}"
            problems.append(f"{name} is {has}")
    ignored = [name for name in found if name not in expected]
    if not problems and _count(found, ignored) > MAX_IGNORED_SHARE * _count(found, found):
        problems = [f"{name} is not in the network" for name in ignored]
    if problems:
        raise RunError(
            f"{path} is of another network: {listed(problems, most=MAX_LISTED, separator='; ')}. Start from weights of "
            "the same network (--model), or from scratch"
        )
    copy_weights(model, complete, path)
    return StartReport(
        origin=origin, num_taken=taken, adapted=tuple(adapted), replaced=tuple(replaced), ignored=tuple(ignored)
    )


def _count(tensors: Mapping[str, Tensor], names: Iterable[str]) -> int:
    return sum(tensors[name].numel() for name in names)


def _differs_in_channels(value: Tensor, own: Tensor) -> bool:
    """Whether two kernels of a first convolution differ in the channels of the image alone."""
    is_kernel = value.ndim == own.ndim == 4 and max(value.shape[1], own.shape[1]) <= MAX_IMAGE_CHANNELS
    return is_kernel and value.shape[0] == own.shape[0] and value.shape[2:] == own.shape[2:]


def _with_channels(kernel: Tensor, num_channels: int) -> Tensor:
    """Return a kernel for other channels that answers to grey images as before: each gets the mean of all."""
    mean = kernel.sum(dim=1, keepdim=True) / num_channels
    return mean.repeat(1, num_channels, 1, 1)
