"""Metadata of images, and fingerprints and digests."""
