"""Files: atomic writes, locks, tables and documents with line numbers; limits of this machine."""
