"""Small experiments that explain something."""
