"""Leukaemia cell images: preprocessed once into a cache, then streamed.

An image file becomes a :class:`~leukemia_data.records.record.Record`, is preprocessed by a
:class:`~leukemia_data.operations.recipe.Recipe` and stored in HDF5 shards; a manifest written last commits the cache.
ARCHITECTURE.md draws the flow and the layers. Nothing is imported here, so that importing one module
never loads more than that module needs: ``torch`` is loaded by ``dataset``, ``loader`` and ``augment`` alone.
"""
