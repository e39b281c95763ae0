"""Merge shards on the workers of a Prefect pool: runs of a deployment, one batch of shards each."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from prefect import get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectException
from prefect.states import Cancelling, Crashed

from mergeline.errors import MergeError
from mergeline.merge.job import MergeJob
from mergeline.merge.placement import place
from mergeline.merge.shard import ShardResult
from mergeline.plan.merge_plan import ShardPlan
from mergeline.support.durable import is_held
from tasks.merging import MergeProgress

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

DEPLOYMENT = "merge-shards/merge-shards"

LOOK_SECONDS = 2.0
"""How often runs and finished shards are looked at."""
LOST_SECONDS = 10.0
"""A run is lost when Prefect calls it running for so long although no process holds its lock. A run that is given up
by mistake does no harm: whoever gets its shards waits for it, shard by shard, and finds them finished."""
PENDING_SECONDS = 600.0
"""Or when a worker has taken it and not begun after so long; a container's image may have to be fetched first."""
REMIND_SECONDS = 60.0
"""How often the log says that runs wait for workers."""
MAX_ATTEMPTS = 3
"""After so many lost runs in a row that finished none of their shards, the shards are at fault."""


def alive_path(directory: Path, flow_run_id: UUID | str) -> Path:
    """Return the file that a run holds locked while it merges shards; the kernel lets go when it is killed."""
    return directory / f".run-{flow_run_id}.lock"


def merge_on_workers(job: MergeJob, device: str) -> tuple[ShardResult, ...]:
    """Have the job's shards merged by one run per worker; the shards' records on disk say what is done.

    Args:
        job: What to merge.
        device: As the pipeline says; each worker chooses among its own.

    Raises:
        MergeError: A shard failed, or too many runs were lost.
    """
    progress = MergeProgress(job.nbytes, len(job.shards))
    results: dict[str, ShardResult] = {}
    with get_client(sync_client=True) as client:
        runs = _WorkerRuns(client, job, device, results)
        runs.find_finished(job.shards, progress)
        runs.start([shard for shard in job.shards if shard.filename not in results], attempt=1)
        try:
            while runs.watched:
                time.sleep(LOOK_SECONDS)
                states = [(run, runs.state(run)) for run in runs.watched]
                # After the states: what a run has completed is then seen to be finished.
                runs.find_finished(job.shards, progress)
                for run, state in states:
                    runs.judge(run, state)
                runs.remind(states)
        except BaseException:
            runs.cancel()
            raise
    return tuple(results[shard.filename] for shard in job.shards)


def reason(state: State) -> str:
    """Return what a failed run's exception said, in its own words."""
    name, colon, text = (state.message or "").removeprefix("Flow run encountered an exception: ").partition(": ")
    return text if colon and name.isidentifier() else state.message or "a run failed without a word"


@dataclass
class _Run:
    """One run of the deployment."""

    run_id: UUID
    name: str
    shards: list[ShardPlan]
    attempt: int
    gone_since: float | None = None
    """When it was first seen to have no process."""


class _WorkerRuns:
    """The runs that merge a job's shards, from their start to their end."""

    def __init__(self, client: SyncPrefectClient, job: MergeJob, device: str, results: dict[str, ShardResult]) -> None:
        self.watched: list[_Run] = []
        self._client, self._job, self._device, self._results = client, job, device, results
        self._started_count = 0
        self._reminded = time.monotonic()
        self._logger: logging.Logger | logging.LoggerAdapter[logging.Logger] = get_run_logger()
        pool = client.read_deployment_by_name(DEPLOYMENT).work_pool_name
        assert pool is not None
        self._pool = pool

    def start(self, shards: Sequence[ShardPlan], attempt: int) -> None:
        """Place shards on the pool's workers, one run each; a run waits in the pool until a worker is free."""
        for batch in place([shard.data_nbytes for shard in shards], max(1, self._online_count())):
            self._started_count += 1
            chosen = [shards[index] for index in batch]
            parameters = {
                "plan_file": str(self._job.plan_file),
                "sources": [str(path) for path in self._job.sources],
                "filenames": [shard.filename for shard in chosen],
                "device": self._device,
            }
            name = f"{runtime.flow_run.name} shards {self._started_count}"
            run = run_deployment(DEPLOYMENT, parameters=parameters, timeout=0, flow_run_name=name)
            self.watched.append(_Run(run.id, name, chosen, attempt))

    def find_finished(self, shards: Sequence[ShardPlan], progress: MergeProgress) -> None:
        """Take in the results of shards that have been finished since."""
        for shard in shards:
            if shard.filename not in self._results and (result := self._job.finished(shard)) is not None:
                self._results[shard.filename] = result
                progress(shard.data_nbytes)

    def state(self, run: _Run) -> State:
        state = self._client.read_flow_run(run.run_id).state
        assert state is not None
        return state

    def judge(self, run: _Run, state: State) -> None:
        """Stop watching a run that has ended, and have others finish what a lost one left.

        Raises:
            MergeError: The run failed or was cancelled, or is one lost run too many.
        """
        left = [shard for shard in run.shards if shard.filename not in self._results]
        if state.type == StateType.FAILED:
            raise MergeError(reason(state))
        if state.type in (StateType.CANCELLING, StateType.CANCELLED):
            raise MergeError(f"{run.name}: was cancelled; finished shards are kept: run again.")
        if not state.is_final():
            if not self._is_lost(run, state):
                return
            self._client.set_flow_run_state(
                run.run_id, Crashed(message="Its process has ended without a word."), force=True
            )
        self.watched.remove(run)
        if left:
            self._replace(run, left)

    def _replace(self, run: _Run, left: list[ShardPlan]) -> None:
        attempt = 1 if len(left) < len(run.shards) else run.attempt + 1
        if attempt > MAX_ATTEMPTS:
            raise MergeError(
                f"{left[0].filename}: {run.attempt} runs in a row were lost while they merged it, last {run.name!r}; "
                "see the workers' logs. Finished shards are kept: run again."
            )
        self._logger.warning("Lost %r; %d of its %d shards go to others.", run.name, len(left), len(run.shards))
        self.start(left, attempt)

    def _is_lost(self, run: _Run, state: State) -> bool:
        if state.type == StateType.PENDING:
            return time.time() - state.timestamp.timestamp() > PENDING_SECONDS
        if state.type != StateType.RUNNING or is_held(alive_path(self._job.plan_file.parent, run.run_id)):
            run.gone_since = None
            return False
        run.gone_since = run.gone_since or time.monotonic()
        return time.monotonic() - run.gone_since > LOST_SECONDS

    def remind(self, states: Sequence[tuple[_Run, State]]) -> None:
        """Say now and then that runs wait for workers."""
        if time.monotonic() - self._reminded < REMIND_SECONDS:
            return
        self._reminded = time.monotonic()
        if waiting := sum(state.is_scheduled() for _, state in states):
            self._logger.warning(
                "%d runs wait for a free worker of pool %r (%d are there); start one: prefect worker start --pool %s",
                waiting,
                self._pool,
                self._online_count(),
                self._pool,
            )

    def cancel(self) -> None:
        """Stop what is still running."""
        for run in self.watched:
            # What went wrong first is what the user must read.
            with suppress(PrefectException):
                self._client.set_flow_run_state(run.run_id, Cancelling())

    def _online_count(self) -> int:
        workers = self._client.read_workers_for_work_pool(self._pool)
        return sum(worker.status == WorkerStatus.ONLINE for worker in workers)
