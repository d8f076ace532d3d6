"""The command: options, the order of the measurements, the tables and the line of JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from clara.default_models import BASE, folder_of
from clara.errors import ClaraError
from clara.library.loading import dtype_of
from clara.settings import settings

from . import batches, caches, ceiling, choosing, compression, dtypes, first_token, memory
from .bench import Bench, Options, opened
from .report import Report
from .sizes import sizes_for

SECTIONS: dict[str, Callable[[Bench], Report | list[Report]]] = {
    "compression": compression.measure,
    "first-token": first_token.measure,
    "choosing": choosing.measure,
    "ceiling": ceiling.measure,
    "memory": memory.measure,
    "batches": batches.measure,
    "caches": caches.measure,
    "dtypes": dtypes.measure,
}


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print; ends with a message where an input cannot be used."""
    arguments = _parser().parse_args(words)
    torch.set_num_threads(arguments.threads)
    try:
        _run(arguments)
    except ClaraError as error:
        raise SystemExit(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="How fast the model library is.")
    parser.add_argument("--base", type=Path, help="folder of a causal language model")
    parser.add_argument("--corpus", type=Path, help='.jsonl or .jsonl.gz, {"text": ...} a line')
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=2, help="of the processor")
    parser.add_argument("--seed", type=int, default=0, help="of adapters and passages")
    parser.add_argument("--quick", action="store_true", help="only see that everything runs")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    return parser


def _run(arguments: argparse.Namespace) -> None:
    options = Options(
        base=arguments.base or default_base(),
        corpus=arguments.corpus,
        device=arguments.device,
        dtype=dtype_of(arguments.dtype),
        threads=arguments.threads,
        seed=arguments.seed,
    )
    sizes = sizes_for(options.device, quick=arguments.quick)
    found: dict[str, Any] = {}
    with opened(options, sizes) as bench:
        found["machine"] = machine(bench)
        if arguments.quick:
            print("quick: the times say nothing")
        print(*(f"{name}: {value}" for name, value in found["machine"].items()), sep="\n")
        for section in arguments.only:
            measured = SECTIONS[section](bench)
            reports = measured if isinstance(measured, list) else [measured]
            for report in reports:
                print(f"\n{report.title}", *report.lines, sep="\n  ", flush=True)
                found[report.name] = report.data
    print()
    print(json.dumps(found))


def default_base() -> Path:
    """The default model of this machine.

    Raises:
        ModelMissing: it was not fetched yet.
    """
    return folder_of(BASE, settings().models, field="--base")


def machine(bench: Bench) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "base": bench.setup.base.name,
        "device": _device_name(bench.device),
        "dtype": str(bench.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "rounds": bench.sizes.rounds,
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "processor"
