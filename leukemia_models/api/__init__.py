"""The public functions of :mod:`leukemia_models`; see :mod:`leukemia_data.api` for what all of them have in common."""
