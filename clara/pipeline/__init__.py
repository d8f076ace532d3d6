"""The three stories of the system, each in one file: index, compress, answer.

This package alone holds both a model and a store; everything it needs comes in as arguments.
"""
