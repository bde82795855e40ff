"""The folder of a run: its settings and samples, training, evaluation, prediction."""
