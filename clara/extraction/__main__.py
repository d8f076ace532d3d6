"""The child process of `extract_isolated`: one file on standard input, its document on output."""

from clara.extraction.isolated import serve

if __name__ == "__main__":
    serve()
