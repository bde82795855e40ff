"""Engines on a network: shard tasks on a Dask or Ray cluster, and again where a worker was lost."""
