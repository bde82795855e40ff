"""Batches of cached samples for a network. torch is loaded here."""
