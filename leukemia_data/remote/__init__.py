"""Caches in object stores: copied, staged to local disk, built there."""
