"""The ways to train that bench_train.py compares."""
