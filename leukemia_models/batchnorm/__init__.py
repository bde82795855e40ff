"""BatchNorm: over several ranks, and statistics estimated anew."""
