"""Devices: precision, normalisation, several processes."""
