from __future__ import annotations

import pytest

from leukemia_data.operations.clahe import Clahe, ClaheLab, ClaheLightness, tile_grid
from leukemia_data.operations.colour import Gray, GrayWorld
from leukemia_data.operations.filters import Gabor, HighPass, MeanFilter, Unsharp
from leukemia_data.operations.framing import Canvas, CropToCell, Fit
from leukemia_data.operations.resizing import CenterCrop, Resize
from leukemia_data.operations.stain import StainMacenko, StainReinhard
from leukemia_data.operations.window import Window

PRODUCED = Window(90, 100, 200, 450)


@pytest.mark.parametrize(
    ("step", "needed"),
    [
        (Gray(), PRODUCED),
        (MeanFilter(size_px=3), Window(89, 99, 201, 450)),
        (HighPass(size_px=7), Window(87, 97, 203, 450)),
        (Gabor(size_px=5), Window(88, 98, 202, 450)),
        (Unsharp(sigma_px=3.0), Window(81, 91, 209, 450)),
        # Tiles of 50 px: row 90 blends the tiles 1 and 2, row 199 the tiles 3 and 4; column 100 the tiles 1 and 2.
        (Clahe(tiles=9), Window(50, 50, 250, 450)),
        (ClaheLab(tiles=9), Window(50, 50, 250, 450)),
        (Clahe(tiles=8), Window.full(450)),
        (GrayWorld(), Window.full(450)),
        (StainMacenko(), Window.full(450)),
        (StainReinhard(), Window.full(450)),
        (ClaheLightness(tiles=9), Window(50, 50, 250, 450)),
        (Canvas(side_px=450), Window.full(450)),
        (Fit(side_px=450), Window.full(450)),
        (CropToCell(side_px=450), Window.full(450)),
    ],
)
def test_needed_windows(step, needed):
    assert step.needed(PRODUCED, 450, 450) == needed


def test_steps_that_change_the_side():
    assert CenterCrop(side_px=270).needed(Window.full(270), 450, 270) == Window(90, 90, 360, 360)
    assert Resize().needed(Window.full(128), 270, 128) == Window.full(270)


def test_tiles_keep_their_size():
    assert tile_grid(Window.full(450), 450, 9) == (9, 9)
    assert tile_grid(Window.full(451), 451, 9) == (9, 9)
    assert tile_grid(Window(50, 50, 250, 450), 450, 9) == (4, 8)
