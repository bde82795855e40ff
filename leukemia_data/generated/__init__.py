"""Generated cells, for trying and testing."""
