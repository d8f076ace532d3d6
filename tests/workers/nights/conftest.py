"""The collection of the recompressions' tests: a night recompresses it."""

from tests.workers.recompression.conftest import (
    encoder,
    folder,
    indexing,
    model_engine,
    models,
    small_pages,
    world,
)

__all__ = ["encoder", "folder", "indexing", "model_engine", "models", "small_pages", "world"]
