"""Which samples train, validate and test, by subject; what leaks; what weights have seen."""
