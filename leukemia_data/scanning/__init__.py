"""What a source holds before anything is built of it: how it is read, and what its frames look like."""
