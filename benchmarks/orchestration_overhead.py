"""What Prefect adds to a merge, and whether its database holds every task run afterwards.

    python -m benchmarks.orchestration_overhead

Whole processes are timed, start-up included: the demonstration merge, and one of 102 shards, by the engine alone, as
a flow on a Prefect server that runs, and as a flow on the embedded server, with a new database and with one that is
there. Every run begins without any merged shard.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.checkpoints import HALFWAY_RECIPE, ModelShape, RandomWeights, write_checkpoint
from benchmarks.processes import Measurement, measure
from benchmarks.report import machine, spread, today
from deployments.local.demo import environment, fill
from deployments.loopback_hub import LocalHub
from flows.embedded import EMBEDDED_SETTINGS
from mergeline.support.text import table

ALONE = "engine alone"
ROOT = Path(__file__).parents[1]

ENGINE = """
import sys
from pathlib import Path
from mergeline.sources.hub import Hub
from mergeline.merge.merging import merge_recipe
from mergeline.support.text import parse_size
from mergeline.support.state import state_directory
from mergeline.verify import verify_directory

recipe, name, size = sys.argv[1:]
output = state_directory() / name
merge_recipe(Path(recipe), output, hub=Hub(), max_shard_bytes=parse_size(size))
verify_directory(output)
"""

FLOW = """
import sys
from pathlib import Path
from flows.embedded import prepare_environment, run_flow
from mergeline.support.state import state_directory

prepare_environment(state_directory())
from flows.merge_model import merge_model

recipe, name, size = sys.argv[1:]
more = f"execute: {{max_shard_size: {size}}}"
run_flow(merge_model, {"recipe": Path(recipe).read_text(), "name": name, "device": "cpu", "more": more})
"""


@dataclass(frozen=True)
class Job:
    """A merge that is timed."""

    name: str
    recipe: Path
    max_shard_size: str
    shard_count: int

    @property
    def task_run_count(self) -> int:
        """Plan, two downloads, the shards, assemble, verify."""
        return self.shard_count + 5


@dataclass
class Bench:
    """Where processes run, and how often they have."""

    folder: Path
    count: int = 0

    def measure(self, program: str, job: Job, home: Path, **variables: str) -> Measurement:
        """Run a program on a job."""
        return measure(
            [sys.executable, "-c", program, job.recipe, self.next_name(), job.max_shard_size],
            directory=self.folder,
            environment={"MERGELINE_HOME": str(home)} | variables,
            on_memory_file_system=False,
        )

    def next_name(self) -> str:
        self.count += 1
        return self.last_name

    @property
    def last_name(self) -> str:
        """Names the run's output, so that none finds another's, and its flow run."""
        return f"run-{self.count}"


def recorded(database: Path, flow_run: str, expected: int, patience_seconds: float) -> int:
    """Return how many task runs of a flow run the database holds in state Completed, waiting for those to come."""
    query = (
        "SELECT count(*) FROM task_run JOIN flow_run ON flow_run.id = task_run.flow_run_id "
        "WHERE flow_run.name = ? AND task_run.state_name = 'Completed'"
    )
    deadline = time.monotonic() + patience_seconds
    while True:
        with closing(sqlite3.connect(database)) as connection:
            (found,) = connection.execute(query, (flow_run,)).fetchone()
        if found >= expected or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """Run a Prefect server and give its API's address once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    home.mkdir(parents=True)
    command = [sys.executable, "-m", "deployments.prefect_server", "--host", "127.0.0.1", "--port", str(port)]
    variables = os.environ | EMBEDDED_SETTINGS | {"PREFECT_HOME": str(home)}
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}/api"
        while not _answers(f"{url}/health"):
            if server.poll() is not None:
                raise RuntimeError((home / "server.log").read_text()[-2000:])
            time.sleep(0.2)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=5):
            return True
    except (URLError, OSError):
        return False


def time_jobs(
    bench: Bench, jobs: list[Job], repeat: int, runs: int
) -> Iterator[tuple[str, Job, list[Measurement], str]]:
    """Time every job in every way; yield the way, the job, wall seconds and how many runs are recorded whole."""
    with prefect_server(bench.folder / "server") as url:
        for job in jobs:
            # Once beforehand: what is downloaded and compiled the first time is nobody's overhead.
            bench.measure(ENGINE, job, bench.folder / "engine")
            yield ALONE, job, [bench.measure(ENGINE, job, bench.folder / "engine") for _ in range(repeat)], ""
            whole, taken = 0, []
            for _ in range(repeat):
                taken.append(bench.measure(FLOW, job, bench.folder / "with-server", PREFECT_API_URL=url))
                whole += _is_whole(bench, job, bench.folder / "server", patience_seconds=10.0)
            yield "flow, server running", job, taken, f"{whole} of {repeat}"
    for job in jobs:
        homes = [bench.folder / f"new-{job.name}-{index}" for index in range(repeat)]
        whole, taken = 0, []
        for home in homes:
            taken.append(bench.measure(FLOW, job, home))
            whole += _is_whole(bench, job, home / "prefect")
        yield "flow, embedded, new database", job, taken, f"{whole} of {repeat}"
        whole, taken = 0, []
        count = runs if job is jobs[-1] else repeat
        for _ in range(count):
            taken.append(bench.measure(FLOW, job, homes[0]))
            whole += _is_whole(bench, job, homes[0] / "prefect")
        yield "flow, embedded", job, taken, f"{whole} of {count}"


def _is_whole(bench: Bench, job: Job, prefect_home: Path, patience_seconds: float = 0.0) -> bool:
    count = recorded(prefect_home / "prefect.db", bench.last_name, job.task_run_count, patience_seconds)
    return count == job.task_run_count


def many_shards(folder: Path) -> Job:
    """Make two checkpoints of 102 tensors, each of which becomes a shard."""
    shape = ModelShape(11, 64, 96, 4, 2, vocabulary=128)
    for seed, name in enumerate(("first", "second")):
        write_checkpoint(folder / name, shape, weights=RandomWeights(seed))
    recipe = folder / "many.yaml"
    recipe.write_text(HALFWAY_RECIPE.format(first=folder / "first", second=folder / "second"))
    return Job("many", recipe, "1B", len(shape.tensors()))


def report(results: Mapping[tuple[str, str], tuple[Job, list[Measurement], str]]) -> str:
    """Render the times, each beside the same job's by the engine alone."""
    rows: list[tuple[str, ...]] = []
    for (name, way), (job, taken, whole) in results.items():
        cells = [name, str(job.shard_count), way]
        for times, alone in zip(_times(taken), _times(results[name, ALONE][1]), strict=True):
            cells += [spread(times), "" if way == ALONE else f"{median(times) - median(alone):.1f}"]
        rows.append((*cells, whole))
    header = ("merge", "shards", "run as", "wall s", "added", "CPU s", "added", "all task runs recorded")
    return "\n".join(table(header, rows))


def _times(taken: list[Measurement]) -> tuple[list[float], list[float]]:
    return [each.wall_seconds for each in taken], [each.cpu_seconds for each in taken]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="of every kind of run (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=10, help="of the last job on the embedded server (%(default)s)")
    options = parser.parse_args()
    results: dict[tuple[str, str], tuple[Job, list[Measurement], str]] = {}
    with tempfile.TemporaryDirectory() as name, LocalHub(Path(name) / "hub") as hub:
        folder = Path(name)
        # Before huggingface_hub is imported, here and in the processes that are timed.
        own = {"HF_HOME": str(folder / "hf"), "MERGELINE_HOME": str(folder), "PYTHONPATH": str(ROOT)}
        os.environ.update(environment(hub.endpoint) | own)
        fill(hub.endpoint)
        demonstration = Job("demonstration", ROOT / "configs" / "merges" / "demo-slerp.yaml", "150kB", 3)
        bench = Bench(folder)
        for way, job, taken, whole in time_jobs(
            bench, [demonstration, many_shards(folder)], options.repeat, options.runs
        ):
            print(f"{job.name}, {way}: {spread(_times(taken)[0])} s {whole}", file=sys.stderr, flush=True)
            results[job.name, way] = job, taken, whole
    print(f"{today()}, {machine()}\n\n{report(results)}")


if __name__ == "__main__":
    main()
