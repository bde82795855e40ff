"""Preprocessing recipes as values: operations, their parameters, and the TOML they are read from."""
