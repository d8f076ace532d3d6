"""How fast the model library is: beside the plain way, beside plain text, beside the machine.

Usage: python scripts/bench_model.py [--device cuda] [--corpus FILE.jsonl[.gz]] [--quick]

Without a corpus: the sample shop's texts. The weights are random adapters over a real base, so the
numbers say how long things take, not how good the answers are. Prints tables, then one JSON line.
"""

from __future__ import annotations

from bench.command import main

if __name__ == "__main__":
    main()
