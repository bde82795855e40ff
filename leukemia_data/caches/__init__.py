"""Caches in folders and object stores: shards, manifest, index; opened, checked, copied."""
