"""The files under ``deployments/`` that other programs read, checked against the schemas of those programs."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import prefect
import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.templating import apply_values, find_placeholders

from deployments.foreign_pages import HOSTS
from deployments.register import DEPLOYMENTS, POOL_TYPES, POOLS, job_template

FOLDER = DEPLOYMENTS.parent
ROOT = FOLDER.parent
METADATA = "server/api/collections_data/views/aggregate-worker-metadata.json"
CONTAINERS = [kind for kind in POOL_TYPES if kind != "process"]


def test_prefect_reads_the_deployments_as_they_are_meant() -> None:
    content = yaml.safe_load(DEPLOYMENTS.read_text())
    model = PrefectYamlModel.model_validate(content)
    assert {deployment.name for deployment in model.deployments} == {
        "merge-and-evaluate",
        "merge-model",
        "evaluate-model",
        "merge-shards",
        "watch-sources",
    }
    for deployment, written in zip(model.deployments, content["deployments"], strict=True):
        assert set(written) <= set(type(deployment).model_fields)
        assert deployment.work_pool is not None
        assert deployment.work_pool.name in POOLS
        assert deployment.entrypoint is not None
        flow = load_flow_from_entrypoint(deployment.entrypoint)
        assert flow.name == deployment.name
        for schedule in written["schedules"]:
            assert schedule["active"] is False
            assert {"slug", "timezone"} <= set(schedule)
            flow.validate_parameters(schedule.get("parameters", {}))


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_job_template_is_a_schema_whose_every_field_is_used(kind: str) -> None:
    template = job_template(kind)
    jsonschema.Draft202012Validator.check_schema(template["variables"])
    fields = template["variables"]["properties"]
    used = {placeholder.name for placeholder in find_placeholders(json.dumps(template["job_configuration"]))}
    assert used == set(fields)
    for name, field in fields.items():
        assert field["title"], name
        assert field["description"], name
        if "default" in field:
            jsonschema.validate(field["default"], field)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_job_template_sets_what_its_worker_knows(kind: str) -> None:
    known = job_configuration_of(kind)
    # What the template of the worker's own package leaves out, and its job configuration takes all the same.
    more = {"docker": {"container_create_kwargs"}, "kubernetes": set[str]()}[kind]
    assert set(job_template(kind)["job_configuration"]) <= set(known) | more


def job_configuration_of(kind: str) -> dict[str, Any]:
    """Return the default job of a worker type, as Prefect's server lists it."""
    listed = json.loads((Path(prefect.__file__).parent / METADATA).read_text())
    workers = {name: worker for package in listed.values() for name, worker in package.items()}
    return workers[kind]["default_base_job_configuration"]["job_configuration"]


def test_a_kubernetes_job_owns_one_gpu_and_the_shared_folder() -> None:
    template = job_template("kubernetes")
    defaults = {name: field.get("default") for name, field in template["variables"]["properties"].items()}
    job = apply_values(template["job_configuration"], {k: v for k, v in defaults.items() if v is not None})
    pod = job["job_manifest"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["resources"]["requests"]["nvidia.com/gpu"] == 1
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    homes = [container["env"][name] for name in ("MERGELINE_HOME", "HF_HOME")]
    assert all(home.startswith("/shared/") for home in homes)


def test_every_service_of_compose_has_what_it_names() -> None:
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    services: dict[str, dict[str, Any]] = compose["services"]
    assert {"postgres", "prefect", "mlflow", "register", "worker-cpu", "worker-gpu-0"} <= set(services)
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name}: {other}"
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (FOLDER / source).exists(), f"{name}: {source}"
        # Every published port is bound to 127.0.0.1.
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        command = service.get("command", [])
        if command[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(command[2]) is not None, name
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET|DATABASE|STORE_URI", key):
                assert "${" in value, f"{name}: {key} is written out"
    assert {
        services[name]["environment"]["PREFECT_API_URL"] for name in ("register", "worker-cpu", "worker-gpu-0")
    } == {"http://prefect:4200/api"}


def test_every_service_is_a_name_that_its_server_answers_to() -> None:
    services: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    assert services["prefect"]["command"][:3] == ["python", "-m", "deployments.prefect_server"]
    called = [
        service["environment"]["PREFECT_API_URL"]
        for service in services.values()
        if "PREFECT_API_URL" in service.get("environment", {})
    ]
    assert {urlsplit(url).hostname for url in called} == set(services["prefect"]["environment"][HOSTS].split(","))


def test_no_file_starts_prefect_where_every_page_may_call_it() -> None:
    written = {
        path: path.read_text()
        for folder in ("docs", "deployments", "flows", "mergeline", "configs", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".yaml", ".json", ".sh") or path.name == "Dockerfile"
    } | {path: path.read_text() for path in (ROOT / "README.md", ROOT / "Makefile")}
    starts = re.compile(r"prefect\W+server\W+start")
    # Both warn of it.
    assert {path.name for path, text in written.items() if starts.search(text)} == {"prefect_server.py", "deploying.md"}


def test_the_image_copies_what_there_is() -> None:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1] for line in lines if line.startswith("COPY")]
    assert all((ROOT / path).exists() for path in copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv", ".mergeline", "deployments/.env"} <= set(ignored)
