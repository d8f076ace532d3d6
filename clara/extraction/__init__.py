"""Files become documents: plain text, Markdown, HTML, PDF, Word, and JSON lines.

Importing this loads no parser; each reader loads its own at its first file. A file from a
stranger goes through `extract_isolated`, a file of one's own through `extract`.
"""

from clara.extraction.files import SUFFIXES, extract, find_files
from clara.extraction.isolated import extract_isolated
from clara.extraction.jsonl import read_jsonl

__all__ = ["SUFFIXES", "extract", "extract_isolated", "find_files", "read_jsonl"]
