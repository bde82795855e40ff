"""Training plans of several stages."""
