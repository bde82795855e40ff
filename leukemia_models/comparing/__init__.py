"""Several runs: cross-validation and comparison."""
