"""Pixels in, pixels out: decoding, every operation of a recipe, whole recipes."""
