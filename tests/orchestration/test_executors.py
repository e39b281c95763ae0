"""One merge on a real Ray cluster and on real Prefect workers: the bytes of a merge by itself, and no shard twice."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from flows.executors import on_workers, require_executor
from flows.merge_shards import merge_shards
from mergeline.errors import InputError
from mergeline.merge.merging import merge_recipe
from mergeline.pipeline.language import Execute
from mergeline.sources.hub import Hub
from mergeline.support.text import parse_size
from tests.builders.tiny_checkpoints import make_mistral

ROOT = Path(__file__).parents[2]
SHARD_SIZE = "8MB"
SHARD_COUNT = 7
POOL = "machines"
DEADLINE_SECONDS = 240.0
"""For anything at all: the machine may be slow and busy."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds who writes a shard through /proc"),
]
needs_ray = pytest.mark.skipif(
    not importlib.util.find_spec("prefect_ray"), reason="prefect-ray is not installed: pip install 'mergeline[ray]'"
)

FLOW = """
import json, sys
from pathlib import Path
from flows.merge_model import merge_model

recipe, name, more = sys.argv[1:]
merged = merge_model(recipe=Path(recipe).read_text(), name=name, device="cpu", more=more)
print(json.dumps({"directory": str(merged.directory), "reused": [r.filename for r in merged.results if r.is_reused]}))
"""


@dataclass(frozen=True)
class Merge:
    """A recipe whose shards take most of a second each, and what it gives."""

    recipe: Path
    sha256: dict[str, str]
    """Of every weight file, as the engine alone merges them."""


@pytest.fixture(scope="module")
def merge(tmp_path_factory: pytest.TempPathFactory) -> Merge:
    folder = tmp_path_factory.mktemp("engines")
    shape = {"layers": 8, "hidden": 512, "intermediate": 1408, "vocabulary": 512}
    base = make_mistral(folder / "base", 1, **shape)
    for seed, name in enumerate(("first", "second"), start=2):
        make_mistral(folder / name, seed, base=base, **shape)
    models = "".join(
        f"  - model: {folder / name}\n    parameters: {{density: 0.5, weight: 0.5}}\n" for name in ("first", "second")
    )
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"merge_method: ties\nbase_model: {folder / 'base'}\nmodels:\n{models}dtype: bfloat16\n")
    alone = merge_recipe(recipe, folder / "alone", hub=Hub(), max_shard_bytes=parse_size(SHARD_SIZE))
    assert len(alone.plan.shards) == SHARD_COUNT
    return Merge(recipe, digests(alone.directory))


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.glob("*.safetensors")}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def environment(state: Path, **variables: str) -> dict[str, str]:
    url = get_current_settings().api.url
    assert url is not None
    return os.environ | {"PREFECT_API_URL": url, "MERGELINE_HOME": str(state), "PYTHONPATH": str(ROOT)} | variables


@contextmanager
def running(command: list[str], env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a process group of its own, of which nothing is left afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(20)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    process.wait()


def start_flow(
    merge: Merge, name: str, engine: str, state: Path, log: IO[bytes], **variables: str
) -> subprocess.Popen[str]:
    more = f"execute: {{engine: {engine}, max_shard_size: {SHARD_SIZE}}}"
    return subprocess.Popen(
        [sys.executable, "-c", FLOW, str(merge.recipe), name, more],
        cwd=ROOT,
        env=environment(state, **variables),
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )


@dataclass(frozen=True)
class Interruption:
    """What was done when a process that was writing a shard was killed."""

    writer: int
    shard: str
    finished: dict[str, tuple[int, int]]
    """Shards that had been finished, with inode and time of writing."""


def kill_a_writer(state: Path, flow: subprocess.Popen[str], parents: Sequence[int] = ()) -> Interruption:
    """Kill the first process that is caught in the middle of a shard, others being finished already.

    One of ``parents`` dies with it, before it, if it is theirs.
    """
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        assert flow.poll() is None, "the merge has ended before a writer was caught"
        for journal in state.glob("merges/.*/.*.journal"):
            partial = journal.with_name(journal.name.removesuffix("journal") + "partial")
            finished = finished_shards(journal.parent)
            if finished and lines(journal) > 2 and (writer := writer_of(partial)) is not None:
                os.kill(writer, signal.SIGSTOP)
                # Stopped: whatever it has not sealed by now it never will.
                if partial.exists():
                    if (parent := parent_of(writer)) in parents:
                        os.kill(parent, signal.SIGKILL)
                    os.kill(writer, signal.SIGKILL)
                    shard = partial.name.removeprefix(".").removesuffix(".partial")
                    return Interruption(writer, shard, finished_shards(journal.parent))
                os.kill(writer, signal.SIGCONT)
        time.sleep(0.002)
    raise AssertionError("no process was caught writing a shard")


def lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def finished_shards(directory: Path) -> dict[str, tuple[int, int]]:
    names = [record.name.removeprefix(".").removesuffix(".done.json") for record in directory.glob(".*.done.json")]
    return {name: identity(directory / name) for name in names}


def identity(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


def writer_of(path: Path) -> int | None:
    """Return the process that has a file open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == path:
                return int(link.parts[2])
        except OSError:
            continue
    return None


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def require_continued(merge: Merge, result: Mapping[str, str], interruption: Interruption) -> None:
    """Assert that the merge is whole, and that nothing that was finished has been touched again."""
    directory = Path(result["directory"])
    assert digests(directory) == merge.sha256
    assert interruption.finished
    assert interruption.shard not in interruption.finished
    for name, earlier in interruption.finished.items():
        assert identity(directory / name) == earlier
    assert not list(directory.glob(".*"))


def finish(flow: subprocess.Popen[str], log: Path) -> Mapping[str, str]:
    output, _ = flow.communicate(timeout=DEADLINE_SECONDS)
    assert flow.returncode == 0, log.read_text()[-3000:]
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("engine", [pytest.param("ray", marks=needs_ray), "workers"])
def test_an_engine_without_a_server_that_others_reach_is_refused(engine: str) -> None:
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(InputError) as error:
        require_executor(Execute.model_validate({"engine": engine}))
    assert str(error.value) == (
        f"execute.engine: {engine} needs a Prefect server that its workers reach: start one with "
        "`python -m deployments.prefect_server` and set PREFECT_API_URL, or use threads."
    )


@needs_ray
def test_a_ray_cluster_that_does_not_answer_is_refused(prefect_server: None) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(InputError, match=rf"execute\.ray_address: {address} does not answer \(Connection refused\)"):
        require_executor(Execute(engine="ray", ray_address=address))


def test_workers_without_their_deployment_are_refused(prefect_server: None) -> None:
    with pytest.raises(InputError, match="needs the deployment merge-shards/merge-shards, which this Prefect server"):
        require_executor(Execute(engine="workers"))


@pytest.fixture(scope="module")
def ray_address(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[str]:
    """A Ray cluster of one node with room for two processes."""
    folder = tmp_path_factory.mktemp("ray")
    address = f"127.0.0.1:{free_port()}"
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=false"]
    command += ["--node-ip-address=127.0.0.1", f"--port={address.partition(':')[2]}", "--disable-usage-stats"]
    variables = environment(folder, RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="0")
    with running(command, variables, folder / "ray.log"):
        wait_until(lambda: "Ray runtime started" in (folder / "ray.log").read_text(), "the Ray cluster")
        yield address


@needs_ray
def test_ray_gives_the_same_bytes_and_a_killed_worker_costs_its_shard_alone(
    merge: Merge, ray_address: str, tmp_path: Path
) -> None:
    log = tmp_path / "flow.log"
    with log.open("wb") as output:
        flow = start_flow(merge, "on-ray", "ray", tmp_path / "state", output, RAY_ADDRESS=ray_address)
    with flow:
        interruption = kill_a_writer(tmp_path / "state", flow)
        result = finish(flow, log)
    require_continued(merge, result, interruption)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two process workers of one pool, each of which takes one run at a time, and the deployment they serve."""
    folder = tmp_path_factory.mktemp("workers")
    schema = parameter_schema(merge_shards).model_dump(mode="json")
    pull = [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
    with get_client(sync_client=True) as client:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        client.create_deployment(
            client.create_flow(merge_shards),
            on_workers.DEPLOYMENT.partition("/")[2],
            work_pool_name=POOL,
            entrypoint="flows.merge_shards.merge_shards",
            pull_steps=pull,
            parameter_openapi_schema=schema,
        )
        with ExitStack() as stack:
            started = [stack.enter_context(running_worker(name, folder)) for name in ("first", "second")]
            wait_until(lambda: len(client.read_workers_for_work_pool(POOL)) == len(started), "the workers")
            yield started


def running_worker(name: str, folder: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    prefect = str(Path(sys.executable).with_name("prefect"))
    command = [prefect, "worker", "start", "--pool", POOL, "--name", name, "--limit", "1"]
    return running(command, environment(folder, PREFECT_WORKER_QUERY_SECONDS="1"), folder / f"{name}.log")


def test_workers_give_the_same_bytes_and_a_killed_one_is_marked_and_replaced(
    merge: Merge, workers: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    log = tmp_path / "flow.log"
    with log.open("wb") as output:
        flow = start_flow(merge, "on-workers", "workers", tmp_path / "state", output)
    with flow:
        # As when a machine is lost: neither the run's process nor its worker can say a word.
        interruption = kill_a_writer(tmp_path / "state", flow, [worker.pid for worker in workers])
        result = finish(flow, log)
    require_continued(merge, result, interruption)
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=[merge_shards.name])))
    ends = Counter(run.state_name for run in runs)
    assert ends["Crashed"] == 1
    assert set(ends) == {"Crashed", "Completed"}
    (crashed,) = [run for run in runs if run.state_name == "Crashed"]
    assert crashed.state is not None
    assert crashed.state.message == "Its process has ended without a word."
    assert interruption.shard in crashed.parameters["filenames"]


def test_a_failed_run_is_told_in_the_words_of_its_shard(merge: Merge, prefect_server: None, tmp_path: Path) -> None:
    missing = tmp_path / "unshared" / "plan.json"
    state = merge_shards(missing, [], ["model.safetensors"], return_state=True)
    assert state.is_failed()
    assert on_workers.reason(state).startswith(f"{missing}: is not there on ")
