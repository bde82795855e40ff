"""Pictures of recipes."""
