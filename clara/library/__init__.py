"""The model as a library: the calls of the published code, in one process and one thread."""
