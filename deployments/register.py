"""Create work pools, deployments and automations on the Prefect server at ``$PREFECT_API_URL``.

``python -m deployments.register [--pool-type TYPE]``: run it again after any change; schedules that people have added
or switched on stay.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mergeline.errors import RunError
from mergeline.support.digests import digest

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

FOLDER = Path(__file__).parent
DEPLOYMENTS = FOLDER / "prefect.yaml"
POOL_TYPES = ("process", "docker", "kubernetes")
POOLS = {
    "cpu": "Planning, watching: runs that need no accelerator.",
    "gpu": "Merging, evaluating: one worker per device, one run at a time on each.",
}

VERSION = "mergeline_deployments"
"""Prefect variable with the digest of what was deployed. The same is not deployed twice: that would undo what people
have changed since, and an updated automation forgets the runs it was waiting for."""


def register(pool_type: str = "process") -> list[str]:
    """Create or update everything.

    Args:
        pool_type: How workers start runs; existing pools keep their type and settings.

    Returns:
        The deployments' names, flow first.
    """
    from prefect.client.orchestration import get_client
    from prefect.variables import Variable

    from deployments.automations import install_automations

    with get_client(sync_client=True) as client:
        for name, description in POOLS.items():
            create_pool(client, name, description, pool_type)
        earlier = {deployment.id: deployment for deployment in registered(client)}
        version = definitions_digest()
        if len(earlier) < len(deployment_names()) or Variable.get(VERSION) != version:
            _deploy()
            for deployment in registered(client):
                if deployment.id in earlier:
                    keep_schedules(client, earlier[deployment.id], deployment)
            install_automations(client)
            Variable.set(VERSION, version, overwrite=True)
        now = registered(client)
        return [f"{client.read_flow(deployment.flow_id).name}/{deployment.name}" for deployment in now]


def create_pool(client: SyncPrefectClient, name: str, description: str, pool_type: str) -> None:
    """Create a work pool with our job template for its type, unless it exists."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    template = {} if pool_type == "process" else job_template(pool_type)
    try:
        client.create_work_pool(
            WorkPoolCreate(name=name, type=pool_type, description=description, base_job_template=template)
        )
    except ObjectAlreadyExists:
        return


def job_template(pool_type: str) -> dict[str, Any]:
    """Return the base job template of a type of worker."""
    return json.loads((FOLDER / "job_templates" / f"{pool_type}.json").read_text())


def deployment_names() -> list[str]:
    """Return the names in ``prefect.yaml``."""
    return [deployment["name"] for deployment in yaml.safe_load(DEPLOYMENTS.read_text())["deployments"]]


def definitions_digest() -> str:
    """Return a digest of what is deployed: files, flows, the directory they run in, the address to notify."""
    files = [DEPLOYMENTS, FOLDER / "automations.py", *sorted((FOLDER.parent / "flows").rglob("*.py"))]
    return digest([str(Path.cwd()), os.environ.get("MERGELINE_NOTIFY_URL"), *(path.read_text() for path in files)])


def registered(client: SyncPrefectClient) -> Iterator[DeploymentResponse]:
    """Yield the deployments of ``prefect.yaml`` that are on the server."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    yield from client.read_deployments(
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=deployment_names()))
    )


def keep_schedules(client: SyncPrefectClient, earlier: DeploymentResponse, now: DeploymentResponse) -> None:
    """Restore active schedules and those that people had added: deploying replaces every schedule."""
    known = {schedule.slug: schedule for schedule in now.schedules if schedule.slug}
    for schedule in earlier.schedules:
        if schedule.slug not in known:
            client.create_deployment_schedules(
                now.id, [(schedule.schedule, schedule.active)], parameters=schedule.parameters, slug=schedule.slug
            )
        elif schedule.active:
            client.update_deployment_schedule(now.id, known[schedule.slug].id, active=True)


def _deploy() -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(DEPLOYMENTS)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise RunError(f"`prefect deploy` failed with status {done.returncode}; what it said is above.")


def main() -> None:
    """Register, and print the deployments."""
    parser = argparse.ArgumentParser(prog="python -m deployments.register", description=__doc__)
    parser.add_argument(
        "--pool-type", choices=POOL_TYPES, default="process", help="of new pools (default: %(default)s)"
    )
    for name in register(parser.parse_args().pool_type):
        print(name)


if __name__ == "__main__":
    main()
