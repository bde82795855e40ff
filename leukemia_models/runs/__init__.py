"""The folder of a run, the data it was begun with, and how it is evaluated."""
