"""From a listing to a cache: plan, tasks, engines, commit; garbage collection and repair."""
