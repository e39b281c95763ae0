"""The local Hub's Xet storage, asked by the client's own library."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from huggingface_hub import HfApi

from deployments.loopback_hub import LOCAL_TOKEN, LocalHub
from tests.builders.local_hub_requests import REPOSITORY, ask


def test_a_hub_without_xet_says_so(hub_api: HfApi, published: str, local_hub: LocalHub):
    path = f"/api/models/{REPOSITORY}/xet-write-token/main"
    response, _ = ask(local_hub.endpoint, path, Authorization=f"Bearer {LOCAL_TOKEN}")
    assert response.status == 404
    assert [entry.path for entry in hub_api.list_repo_tree(REPOSITORY) if getattr(entry, "xet_hash", None)] == []


def test_files_travel_through_xet_and_are_there_for_clients_without_it(tmp_path: Path):
    script = """
        import os, sys
        from huggingface_hub import HfApi
        api, data = HfApi(), os.urandom(3_000_000)
        api.create_repo("mergeline/model")
        for name in ("a.safetensors", "b.safetensors"):
            api.upload_file(repo_id="mergeline/model", path_or_fileobj=data, path_in_repo=name)
            data += b"appended"
        with open(api.hf_hub_download("mergeline/model", "b.safetensors"), "rb") as file:
            print(file.read() + b"appended" == data)
        import hf_xet
        from huggingface_hub import constants
        *_, file = api.list_repo_tree("mergeline/model")
        url = f"{api.endpoint}/api/models/mergeline/model/xet-read-token/main"
        headers = {"Authorization": "Bearer " + os.environ["HF_TOKEN"]}
        group = hf_xet.XetSession().new_download_stream_group(token_refresh_url=url, token_refresh_headers=headers)
        stream = group.download_stream(hf_xet.XetFileInfo(file.xet_hash, file.size), start=2_999_990, end=3_000_004)
        print(b"".join(stream) == data[2_999_990:3_000_004])
        constants.HF_HUB_DISABLE_XET = True
        path = api.hf_hub_download("mergeline/model", "b.safetensors", cache_dir=sys.argv[1])
        with open(path, "rb") as file:
            print(file.read() + b"appended" == data)
    """
    with LocalHub(tmp_path / "hub", xet=True) as hub:
        environment = os.environ | {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": LOCAL_TOKEN,
            "HF_HOME": str(tmp_path / "home"),
        }
        command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "second-cache")]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert result.stdout.split() == ["True"] * 3, result.stderr
        uploads = [request for request in hub.requests if request.method == "PUT"]
        xorbs = [request for request in hub.requests if request.path.startswith("/xorb/")]
        plain = [request for request in hub.requests if request.path.startswith("/lfs/")]
        assert (uploads, len(plain)) == ([], 1)
        assert xorbs
        stored = sum(path.stat().st_size for path in (tmp_path / "hub/xet/xorbs").iterdir())
        assert stored < 3_500_000, "the second file shares all but its last chunk with the first"
    with LocalHub(tmp_path / "hub", xet=True) as hub:
        *_, file = HfApi(endpoint=hub.endpoint, token=False).list_repo_tree("mergeline/model")
        assert file.xet_hash
        reader, writer = (
            ask(hub.endpoint, f"/api/models/mergeline/model/xet-{kind}-token/main")[0].status
            for kind in ("read", "write")
        )
        assert (reader, writer) == (200, 401)
