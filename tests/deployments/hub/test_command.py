"""The loopback Hub as a package and as a program."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from deployments.loopback_hub import LocalHub

ROOT = Path(__file__).parents[3]


def test_one_folder_is_served_by_one_hub(local_hub: LocalHub):
    with pytest.raises(OSError, match="is served by another local Hub"):
        LocalHub(local_hub.root).start()


def test_the_command_prints_one_line_and_stops_when_told(tmp_path: Path):
    command = [sys.executable, "-m", "deployments.loopback_hub", str(tmp_path / "hub")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        line = server.stdout.readline()
        settings = dict(pair.split("=", 1) for pair in line.split())
        assert settings["HF_HUB_DISABLE_XET"] == "1"
        assert HfApi(endpoint=settings["HF_ENDPOINT"], token=settings["HF_TOKEN"]).whoami()["name"] == "mergeline"
        second = subprocess.run([*command, "--port", "0"], cwd=ROOT, capture_output=True, text=True)
        assert (second.returncode, second.stdout) == (2, "")
        assert re.fullmatch(r"The local Hub cannot start: .* is served by another .*\n", second.stderr)
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=10) == 0
        assert (server.stdout.read(), server.stderr.read()) == ("", "")


def test_the_package_imports_nothing_of_mergeline():
    code = (
        "import sys, deployments.loopback_hub.__main__; "
        "ours = [name for name in sys.modules if name.split('.')[0] in ('mergeline', 'flows', 'tasks')]; "
        "sys.exit(', '.join(ours) or 0)"
    )
    outcome = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (outcome.returncode, outcome.stderr) == (0, "")
