"""Where a network runs: precision, normalisation, several processes."""
