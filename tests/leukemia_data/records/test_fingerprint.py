from __future__ import annotations

import hashlib
from dataclasses import replace

import cv2
import pytest
import xxhash

from leukemia_data.operations.clahe import Clahe
from leukemia_data.operations.filters import Unsharp
from leukemia_data.operations.framing import Canvas
from leukemia_data.operations.recipe import Recipe, load_recipe
from leukemia_data.operations.resizing import CenterCrop, Resize
from leukemia_data.records.fingerprint import (
    bytes_digest,
    cache_fingerprint,
    canonical_json,
    file_digest,
    installed_opencv_version,
    lines_digest,
)

OPENCV = "5.0.0"
REPORT_A_AT_224 = (
    '{"fingerprint_version":1,"opencv":"5.0.0","size_px":224,"steps":['
    '{"op":"canvas","side_px":450,"version":1},'
    '{"clip_limit":3.0,"op":"clahe","tiles":9,"version":1},'
    '{"op":"unsharp","sigma_px":3.0,"strength":1.5,"version":1},'
    '{"op":"center_crop","side_px":270,"version":1},'
    '{"method":"area","op":"resize","version":1}]}'
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("raw", "5a7e852610a6b124ae2a57db62ab2f3650e1ed02320dc3299f7eb1f307b85e78"),
        ("report-a", "e05872f720cff3cbbe419db3d5af3daf82fadf700f5b8ad218d6b7f2ffabc5d3"),
        ("report-b", "f61053e9aa42e39f4f3df0a0af84139e2ce209ff943ebf94637de504d3e0a7c4"),
        ("lab-clahe", "5b8311ddd5b6cfdbf976819ad271063dbe482b527d8381f9471f77ffa694a3ba"),
        ("crop", "951e299f2079da27548268e2eda05c7e1da3e0a01539a3b08635b3b7e17531c5"),
        ("gabor", "7a134e4ea18f05b2b9ccebd88fa35bcdef3b293de7aa304bf4a9ca91d1007946"),
        ("gray", "73eb93b28f1830e61bdf0043330e606dd3a46e4dea0bbe53ee5010e0d7a769bb"),
        ("gray-world", "3f7b136f452c2318423dc8751bef4dce349aa910ab5c4dd8b3b47737b3657d5d"),
        ("high-pass", "0684599601553000817413781cabd7e03fb39cc948f6ca6a73c2397c034bd30f"),
        ("macenko", "237f55bc547521fa07b2675519de157c2396d5c3fcee6d2ce66c6ee50249eab2"),
        ("mean-filter", "006918d8e2814f73ee06b608b3c73f1d98fd8713df5e2806f18cb8d2e86983ff"),
        ("reinhard", "bade48b4cb8536a7f7f5bf185e920a169a9daffc5b17fb7605a7145515223569"),
        ("report-a-strong", "f807e156d732acfb9b609a915720bbcbefb30c1b63d9833ccb4a1c585a05cd22"),
    ],
)
def test_golden_fingerprints(name, expected):
    """A change here makes every existing cache a miss; list it in the changelog."""
    assert cache_fingerprint(load_recipe(name), 224, OPENCV) == expected


def test_the_fingerprint_is_the_sha_256_of_the_written_out_description():
    expected = hashlib.sha256(REPORT_A_AT_224.encode("ascii")).hexdigest()
    assert cache_fingerprint(load_recipe("report-a"), 224, OPENCV) == expected


STEPS = (Canvas(), Clahe(), Unsharp(), CenterCrop(side_px=270), Resize())


@pytest.mark.parametrize(
    "steps",
    [
        (Canvas(side_px=451), *STEPS[1:]),
        (STEPS[0], Clahe(clip_limit=4.0), *STEPS[2:]),
        (STEPS[0], Clahe(tiles=10), *STEPS[2:]),
        (*STEPS[:2], Unsharp(sigma_px=3.5), *STEPS[3:]),
        (*STEPS[:2], Unsharp(strength=1.25), *STEPS[3:]),
        (*STEPS[:3], CenterCrop(side_px=271), STEPS[4]),
        (*STEPS[:3], CenterCrop(), STEPS[4]),
        (*STEPS[:4], Resize(method="antialias")),
        (STEPS[0], STEPS[2], STEPS[1], *STEPS[3:]),
        (STEPS[0], *STEPS[2:]),
        (*STEPS, Resize()),
    ],
)
def test_every_change_of_a_step_changes_it(steps):
    before = cache_fingerprint(Recipe("mine", STEPS), 224, OPENCV)
    assert cache_fingerprint(Recipe("mine", steps), 224, OPENCV) != before


def test_size_and_opencv_change_it():
    recipe = Recipe("mine", STEPS)
    assert len({cache_fingerprint(recipe, *rest) for rest in ((224, OPENCV), (128, OPENCV), (224, "5.0.1"))}) == 3


def test_an_operation_s_version_changes_it(monkeypatch):
    before = cache_fingerprint(Recipe("mine", STEPS), 224, OPENCV)
    monkeypatch.setattr(Unsharp, "version", 2)
    assert cache_fingerprint(Recipe("mine", STEPS), 224, OPENCV) != before


def test_name_and_description_do_not():
    recipe = Recipe("mine", STEPS)
    renamed = replace(recipe, name="yours", description="words")
    assert cache_fingerprint(renamed, 224, OPENCV) == cache_fingerprint(recipe, 224, OPENCV)


def test_canonical_json_sorts_keys_at_every_depth_and_is_ascii():
    value = {"b": [{"z": 1, "a": None}], "a": "ä", "B": 0.5}
    assert canonical_json(value) == b'{"B":0.5,"a":"\\u00e4","b":[{"a":null,"z":1}]}'
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_canonical_json_refuses_what_json_cannot_say():
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


def test_the_version_read_from_the_wheel_is_the_loaded_one():
    assert installed_opencv_version() == cv2.__version__


# --- digests --------------------------------------------------------------------------------------------------


def test_digests_are_xxh3_128(tmp_path):
    # The published XXH3-128 of no bytes, seed 0.
    assert bytes_digest(b"").hex() == "99aa06d3014798d86001c324468d497f"
    content = bytes(range(256)) * 9000
    path = tmp_path / "file"
    path.write_bytes(content)
    assert file_digest(path) == bytes_digest(content).hex() == xxhash.xxh3_128_hexdigest(content)
    path.write_bytes(b"")
    assert file_digest(path) == "99aa06d3014798d86001c324468d497f"


def test_lines_digest_depends_on_order_and_line_ends():
    assert lines_digest(["a", "b"]) == bytes_digest(b"a\nb\n").hex()
    assert len({lines_digest(lines) for lines in (["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""], [])}) == 5
