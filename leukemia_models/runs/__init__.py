"""The folder of a run, and how it is judged."""
