"""Kills, restarts, floods and empties everything while users work; then counts what was lost.

Usage: python scripts/run_chaos.py [--seed 1] [--faults 300] [--documents 500] [--questions 200]
           [--minutes 25] [--only "broker flushed" ...]

Starts a whole system of its own with tiny random models, in a temporary folder. With
CLARA_ELASTICSEARCH_URL it searches there, through a proxy that is cut now and then; without, it
uses Tantivy. Prints every fault, a table by kind, and `<n> faults, <n> lost, <n> doubled`; the exit
status is 1 where anything is lost or doubled. Run it from the root of the project.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]  # the tiny models are those of the tests

from chaos.chaos import Size, run  # noqa: E402
from chaos.faults import FAULTS  # noqa: E402
from chaos.world import DOC_MAX_LENGTH, config_of  # noqa: E402

from clara.settings import settings  # noqa: E402
from tests.tiny import tiny_base, tiny_checkpoint, tiny_encoder  # noqa: E402


def main() -> None:
    """Run once."""
    arguments = _parser().parse_args()
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    sys.stdout.write(f"seed {seed}\n")
    size = Size(
        documents=arguments.documents,
        questions=arguments.questions,
        faults=arguments.faults,
        seconds=arguments.minutes * 60,
        only=arguments.only,
    )
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # an embedded Postgres may run as another user
        base = tiny_base(home / "base")
        other = tiny_checkpoint(home / "other", base, doc_max_length=DOC_MAX_LENGTH)
        config = config_of(
            home,
            base=base,
            encoder=tiny_encoder(home / "encoder"),
            elasticsearch_url=settings().elasticsearch_url,
        )
        verdict = run(config, other, size, seed, say)
    raise SystemExit(0 if verdict.passed else 1)


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Faults while users work; nothing may be lost.")
    parser.add_argument("--seed", type=int, help="of load and faults; drawn where not given")
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=25, help="after which no more strike")
    parser.add_argument("--only", nargs="+", default=(), choices=[fault.name for fault in FAULTS])
    return parser


if __name__ == "__main__":
    main()
