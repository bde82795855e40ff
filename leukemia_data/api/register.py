"""Register custom operations, augmentations, codecs, engines and kinds of source by name.

Each function returns its argument, so that it can be used as a decorator; see the registry's module for the required
interface. A module that registers something is imported before the name is used::

    @register.operation
    @dataclass(frozen=True, kw_only=True)
    class Invert(Operation): ...
"""

from __future__ import annotations

from leukemia_data.augmenting.operation import AUGMENTATIONS
from leukemia_data.building.engine import ENGINES
from leukemia_data.caches.codec import CODECS
from leukemia_data.operations.operation import OPERATIONS
from leukemia_data.sources.kinds import SOURCE_KINDS

__all__ = ["augmentation", "codec", "engine", "operation", "source"]

operation = OPERATIONS.register
augmentation = AUGMENTATIONS.register
codec = CODECS.register
engine = ENGINES.register
source = SOURCE_KINDS.register
