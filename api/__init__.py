"""Turns HTTP into rows and messages; never imports a model library."""
