"""Averages the generators of two checkpoints, one of which went on from the other.

Usage: python scripts/average_checkpoints.py ONE OTHER OUT HELD_OUT.jsonl [--share 0.5] [--base B]

Everything but the generator is ONE's. By how much a refusal must lead is measured on records of
stage 2 that neither was trained on, as `clara train default` does it. Whether the mean is better
than ONE is for `clara evaluate` to say, on records that are not reported on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from clara.default_models import BASE
from clara.model import checkpoint as checkpoints
from clara.model.averaging import averaged
from clara.model.models import load_models
from clara.settings import settings
from clara.training.calibration import refusal_margin
from clara.training.data import read
from clara.training.records import Stage


def main() -> None:
    """Average, measure, save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("one")
    parser.add_argument("other")
    parser.add_argument("out", type=Path)
    parser.add_argument("records", type=Path)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--base", default="")
    given = parser.parse_args()
    base = given.base or str(settings().models / BASE.folder)
    first = checkpoints.load(given.one, base=base)
    mean = averaged(first, checkpoints.load(given.other, base=base), share=given.share)
    records = [*read([given.records], Stage.INSTRUCTION)]
    text = refusal_margin(load_models(mean), records, text=True)
    by_rate = tuple(
        refusal_margin(load_models(mean, rate=rate), records, text=False)
        for rate in mean.config.rates
    )
    noted = checkpoints.load(given.one).config.base
    config = replace(mean.config, base=noted, text_refusal_margin=text, refusal_margins=by_rate)
    checkpoints.save(replace(mean, config=config), given.out)
    print(f"{given.out}: refusals lead by {text} (text), {', '.join(map(str, by_rate))}")


if __name__ == "__main__":
    main()
