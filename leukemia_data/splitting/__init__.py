"""Which samples train, validate and test, by subject; and what leaks."""
