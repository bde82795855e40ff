"""Files as such: written whole or not at all, locked, told by line; limits of this machine."""
