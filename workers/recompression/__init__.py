"""Recompressions: `recompressing` tells the story, the other modules its steps and its rows."""
