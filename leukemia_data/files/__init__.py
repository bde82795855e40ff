"""Files as such: written whole or not at all, locked, told by line."""
