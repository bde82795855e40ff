"""Scan a source before a build: its frames by class, and the effect of a recipe on them."""
