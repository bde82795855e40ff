"""From a listing to a cache: plan, tasks, processes, commit; and what is left over."""
