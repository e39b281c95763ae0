"""Merge the same checkpoints with mergekit and with Mergeline, in turns, beside the physical limit.

    python -m benchmarks.merge_speed --parameters 1.1B --method slerp --directory /dev/shm

The limit, called the floor, is reading every parent once and writing one model. Models too large for ``--space`` are
sparse files on ``--sparse-directory``: true headers and sizes, zeros for weights.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks import report
from benchmarks.checkpoints import SHAPES, ModelShape
from benchmarks.contenders import FLOOR, MERGEKIT, OUTPUT, PARENTS, Contender, contenders, parent_count, recipe
from benchmarks.mergekit_environment import installed_versions, mergekit_python
from benchmarks.processes import Measurement, measure

RESULTS = Path(__file__).with_name("RESULTS.md")
TITLE = "# Benchmark results"
PACKAGES = ("torch", "safetensors", "numpy")


def main() -> None:
    options = parse_options()
    # Ended from outside, delete what was made all the same.
    signal.signal(signal.SIGTERM, end)
    python = mergekit_python(options.mergekit_python)
    chosen = [
        contender
        for contender in contenders(options.method, mergekit=python, workers=options.workers)
        if contender.name.partition(",")[0] in options.contenders
    ]
    load = os.getloadavg()[0]
    start_up = run_size("tiny", chosen, options, repeat=1)
    sizes = {name: run_size(name, chosen, options, repeat=options.repeat) for name in options.parameters}
    text = section(options, python, load, start_up, sizes)
    print(text)
    if options.results:
        with options.results.open("a") as file:
            file.write(("\n" if file.tell() else f"{TITLE}\n\n") + text)


def end(signal_number: int, frame: FrameType | None) -> NoReturn:
    del frame
    sys.exit(128 + signal_number)


def parse_options() -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = ", ".join(SHAPES)
    parser.add_argument("--parameters", nargs="+", choices=SHAPES, default=["1.1B"], metavar="SIZE", help=sizes)
    parser.add_argument("--method", default="slerp", help="merge method by its name in a recipe")
    parser.add_argument("--strangers", action="store_true", help="unrelated parents, not fine-tuned by 2 %% from one")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2], help="Mergeline once with each number")
    parser.add_argument(
        "--threads",
        type=int,
        help="OMP_NUM_THREADS for all; without it, each one's own choice. Give 1 on a busy machine: "
        "waiting OpenMP threads use up CPU time there",
    )
    parser.add_argument("--repeat", type=int, default=5, help="turns of all contenders")
    parser.add_argument("--contenders", nargs="+", choices=(MERGEKIT, "mergeline", FLOOR), metavar="NAME")
    parser.add_argument("--mergekit-python", type=Path, help="Python with mergekit 0.1.5; without it, one is made")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="for models that fit into --space")
    parser.add_argument("--sparse-directory", type=Path, default=Path(tempfile.gettempdir()), help="for all others")
    parser.add_argument("--space", type=float, default=10.0, metavar="GB", help="most to use of --directory at once")
    parser.add_argument("--results", type=Path, default=RESULTS, help="Markdown file to append to")
    parser.add_argument("--no-results", dest="results", action="store_const", const=None, help="only print")
    options = parser.parse_args()
    options.contenders = options.contenders or [MERGEKIT, "mergeline", FLOOR]
    return options


def run_size(
    size: str, chosen: Sequence[Contender], options: argparse.Namespace, *, repeat: int
) -> dict[str, list[Measurement]]:
    """Make the parents of one size, run every contender ``repeat`` times in turns, and delete everything."""
    shape = SHAPES[size]
    is_sparse = needed_bytes(shape, options.method) > options.space * 1e9
    place: Path = options.sparse_directory if is_sparse else options.directory
    on_memory = report.file_system_type(place) in ("tmpfs", "ramfs")
    if is_sparse and on_memory:
        # Mapping a hole of such a file fills it with memory.
        raise SystemExit(f"{place} is a memory file system; give a --sparse-directory on a disk for {size}")
    written = shape.nbytes if is_sparse else needed_bytes(shape, options.method)
    if shutil.disk_usage(place).free < 1.1 * written:
        raise SystemExit(f"{place} has less than the {1.1 * written / 1e9:.1f} GB that {size} needs")
    turns: dict[str, list[Measurement]] = {contender.name: [] for contender in chosen}
    with tempfile.TemporaryDirectory(prefix="merge-speed-", dir=place) as workspace:
        directory = Path(workspace)
        make_parents(directory, size, options, is_sparse=is_sparse)
        (directory / "recipe.yaml").write_text(json.dumps(recipe(options.method, shape.layers)))
        environment = {"HF_HUB_OFFLINE": "1", "MERGELINE_HOME": str(directory / "home")}
        if options.threads:
            environment["OMP_NUM_THREADS"] = str(options.threads)
        for turn in range(repeat):
            for contender in chosen:
                run = measure(
                    contender.command, directory=directory, environment=environment, on_memory_file_system=on_memory
                )
                check_output(directory / OUTPUT, shape, contender)
                shutil.rmtree(directory / OUTPUT)
                turns[contender.name].append(run)
                progress = f"{size}, turn {turn + 1} of {repeat}, {contender.name}"
                print(f"{progress}: {run.cpu_seconds:.1f} CPU s, {run.wall_seconds:.1f} s", file=sys.stderr)
    return turns


def needed_bytes(shape: ModelShape, method: str) -> int:
    """Return what the parents and one result take."""
    return (parent_count(method) + 1) * shape.nbytes


def make_parents(directory: Path, size: str, options: argparse.Namespace, *, is_sparse: bool) -> None:
    """Write the parents in processes of their own, so that this one stays small; see :func:`measure`."""
    for number, name in enumerate(PARENTS[: parent_count(options.method)]):
        if is_sparse:
            content = ["--sparse"]
        elif options.strangers:
            content = ["--seed", str(number)]
        else:
            content = ["--change", "0.02" if number else "0", "--change-seed", str(number)]
        command = [sys.executable, "-m", "benchmarks.checkpoints", directory / name, "--shape", size, *content]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1])


def check_output(output: Path, shape: ModelShape, contender: Contender) -> None:
    """Refuse a run that did not write a whole model."""
    nbytes = sum(path.stat().st_size for path in output.glob("*.safetensors"))
    if nbytes < shape.nbytes:
        raise SystemExit(f"{contender.name} wrote {nbytes} bytes of weights; {shape.nbytes} were expected")


def section(
    options: argparse.Namespace,
    python: Path,
    load: float,
    start_up: report.Turns,
    sizes: dict[str, dict[str, list[Measurement]]],
) -> str:
    """Return one section of RESULTS.md."""
    ours = installed_versions(Path(sys.executable), ("mergeline", *PACKAGES))
    theirs = installed_versions(python, (MERGEKIT, *PACKAGES))
    parents = "unrelated" if options.strangers else "fine-tuned by 2 % from one model"
    threads = f"OMP_NUM_THREADS={options.threads}" if options.threads else "each one's own choice"
    starting = ", ".join(f"{name} {spread}" for name, spread in start_up_seconds(start_up).items())
    facts = {
        "Command": f"`{command_line()}`",
        "Machine": f"{report.machine()}; load average {load:.1f} at the start",
        "Files": f"{report.file_system_type(options.directory)}; above {options.space:g} GB in all, sparse files on "
        f"{report.file_system_type(options.sparse_directory)}",
        "Parents": f"{parents}, bfloat16",
        "Threads": threads,
        "Mergeline": described(ours),
        "mergekit": described(theirs),
        "Starting up": f"CPU s for a merge of {SHAPES['tiny'].parameter_count:,} parameters: {starting}",
        "Spread": f"median (least to most) of {options.repeat} turns; ratios are taken turn by turn",
    }
    lines = [f"| {name} | {value} |" for name, value in facts.items()]
    title = f"## {options.method}, {', '.join(sizes)} parameters, {report.today()}"
    return "\n".join([title, "", "| | |", "|---|---|", *lines, "", report.table(sizes), ""])


def start_up_seconds(turns: report.Turns) -> dict[str, str]:
    return {name: report.spread([run.cpu_seconds for run in runs]) for name, runs in turns.items()}


def described(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def command_line() -> str:
    """Return the command as typed, without the one path that is this machine's."""
    words = ["python", "-m", "benchmarks.merge_speed", *sys.argv[1:]]
    if "--mergekit-python" in words:
        words[words.index("--mergekit-python") + 1] = "PATH"
    return shlex.join(words)


if __name__ == "__main__":
    main()
