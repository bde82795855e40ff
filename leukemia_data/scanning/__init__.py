"""A look at a source before a build: its frames by class, and what a recipe does to them."""
