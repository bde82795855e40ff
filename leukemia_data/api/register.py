"""Register custom operations, augmentations, codecs, engines and kinds of source by name.

Each function returns its argument, so that it can be used as a decorator; see the registry's module for the required
interface. A module that registers something is imported before the name is used::

    @register.operation
    @dataclass(frozen=True, kw_only=True)
    class Invert(Operation): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukemia_data.lazy_imports import lazy_names

if TYPE_CHECKING:
    from leukemia_data.augmenting.operation import AUGMENTATIONS
    from leukemia_data.building.engine import ENGINES
    from leukemia_data.caches.codec import CODECS
    from leukemia_data.operations.operation import OPERATIONS
    from leukemia_data.sources.kinds import SOURCE_KINDS

    operation = OPERATIONS.register
    augmentation = AUGMENTATIONS.register
    codec = CODECS.register
    engine = ENGINES.register
    source = SOURCE_KINDS.register

_TARGETS = {
    "operation": "leukemia_data.operations.operation:OPERATIONS.register",
    "augmentation": "leukemia_data.augmenting.operation:AUGMENTATIONS.register",
    "codec": "leukemia_data.caches.codec:CODECS.register",
    "engine": "leukemia_data.building.engine:ENGINES.register",
    "source": "leukemia_data.sources.kinds:SOURCE_KINDS.register",
}
__getattr__, __dir__ = lazy_names(__name__, _TARGETS)
