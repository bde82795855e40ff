"""A cache on disk: shards, manifest, index; opening and checking it."""
