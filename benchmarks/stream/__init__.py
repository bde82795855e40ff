"""Ways to get training batches, one a module, and the machinery that times them side by side.

``python benchmarks/bench_stream.py`` runs it; benchmarks/README.md says how the measuring is done.
"""
