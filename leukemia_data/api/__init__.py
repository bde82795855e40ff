"""The public functions, with arguments as people write them: docs/api.md shows each.

Places are texts, paths or addresses; a cache is also taken where it lies. ``verbose`` is False (silent; cautions are
Python warnings), True (notes and progress on stderr too) or a :class:`~leukemia_data.console.Console`. All raise
:class:`~leukemia_data.errors.LeukemiaError`: UsageError for a wrong argument, one of its siblings for work that failed.
Each function imports what it needs, so that none waits for what only another one loads.
"""
