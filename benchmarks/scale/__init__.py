"""How time and memory grow with the number of samples, up to ten million."""
