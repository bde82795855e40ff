from __future__ import annotations

import numpy as np
import pytest

import leukemia_data as ld
import leukemia_models as lm
from leukemia_data.operations.operation import OPERATIONS
from leukemia_data.operations.recipe import Preprocessor
from leukemia_data.registry import Registry


def test_every_kind_of_thing_can_be_registered():
    assert {"operation", "augmentation", "codec", "engine", "source"} == set(ld.register.__all__)
    assert {"network", "optimizer", "schedule", "metric"} == set(dir(lm.register))
    registries = [getattr(ld.register, kind).__self__ for kind in ld.register.__all__]
    assert all(isinstance(registry, Registry) for registry in registries)
    assert len({registry.kind for registry in registries}) == len(registries)
    for kind in dir(lm.register):
        assert getattr(lm.register, kind).__name__ == f"register_{kind}"


def test_recipes_have_a_custom_operation(tmp_path):
    class Invert(ld.Operation):
        op = "invert-of-a-test"

        def change(self, image_HWC):
            return 255 - image_HWC

    path = tmp_path / "own.toml"
    path.write_text('name = "own"\n[[step]]\nop = "canvas"\nside_px = 8\n[[step]]\nop = "invert-of-a-test"\n')
    with pytest.raises(ld.UsageError, match="unknown operation 'invert-of-a-test'"):
        ld.load_recipe(str(path))
    # As ld.register.operation does, but for this test only.
    with OPERATIONS.temporarily("invert-of-a-test", Invert):
        recipe = ld.load_recipe(str(path))
    frame_HWC = np.full((8, 8, 3), 100, np.uint8)
    assert (Preprocessor(recipe, [8])(frame_HWC)[8] == 155).all()
