"""Preprocessing: operations as validated values, what they do to pixels, recipes and the presets."""
