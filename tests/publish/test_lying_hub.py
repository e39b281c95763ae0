"""A Hub that lies: the token stays at its origin, and no answer makes or removes a file outside the cache."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from deployments.local.hub import LOCAL_TOKEN, Fault, LocalHub
from mergeline.errors import HubError, MergelineError, RepositoryError
from mergeline.sources import hub_failures
from mergeline.sources.hub import Hub, Upload
from mergeline.sources.hub_transport import guarded

REPOSITORY = "mergeline/model"
CONFIG = b'{"model_type": "llama"}'
WEIGHTS = os.urandom(300_000)
FILES = {"config.json": CONFIG, "extra/notes.json": b"{}", "model.safetensors": WEIGHTS}
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@dataclass
class Stranger:
    """Another origin that takes any request, and keeps what it was told."""

    url: str
    heard: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    status: int = 200
    body: bytes = b"[]"
    headers: dict[str, str] = field(default_factory=dict)

    def assert_asked_without_token(self, *methods: str) -> None:
        assert [method for method, _, _, _ in self.heard] == list(methods)
        assert LOCAL_TOKEN not in repr(self.heard)


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    class Connection(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            known.heard.append((self.command, self.path, dict(self.headers), body))
            self.send_response(known.status)
            headers = {"Content-Type": "application/json", "ETag": '"part"', "Content-Length": str(len(known.body))}
            for name, value in (headers | known.headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(known.body)

        do_GET = do_HEAD = do_POST = do_PUT = _serve

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Connection) as server:
        known = Stranger(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield known
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def signed_in_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", LOCAL_TOKEN)
    monkeypatch.setattr(hub_failures, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr("mergeline.sources.xet._endpoints", {})


@pytest.fixture
def hub(local_hub: LocalHub) -> Hub:
    return Hub(local_hub.endpoint)


@pytest.fixture
def xet_hub(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub(tmp_path / "xet-hub", xet=True) as local_hub:
        yield local_hub


def uploads(files: dict[str, bytes]) -> list[Upload]:
    return [Upload(path, content, hashlib.sha256(content).hexdigest()) for path, content in files.items()]


def publish(hub: Hub) -> str:
    hub.create_repository(REPOSITORY, is_private=True)
    parent = hub.resolve(REPOSITORY).commit
    commit = hub.commit(hub.stage(REPOSITORY, uploads(FILES)), parent=parent, title="Add files", description="")
    assert commit is not None
    return commit


def refusal(call: Callable[[], object], kind: type[MergelineError] = HubError) -> str:
    with pytest.raises(kind) as failure:
        call()
    text = str(failure.value)
    assert "\n" not in text
    assert LOCAL_TOKEN not in text
    return text


def listing(local_hub: LocalHub, commit: str) -> list[dict[str, object]]:
    address = f"{local_hub.endpoint}/api/models/{REPOSITORY}/tree/{commit}?recursive=1"
    with urlopen(Request(address, headers={"Authorization": f"Bearer {LOCAL_TOKEN}"})) as answer:
        return json.load(answer)


def lie(local_hub: LocalHub, pattern: str, body: object = None, /, **headers: str) -> None:
    """Answer matching requests for real, but with these headers (``_`` is ``-``) and this JSON."""
    text = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    local_hub.faults.append(Fault(pattern, status=None, times=99, headers=named, body=text))


def redirect(local_hub: LocalHub, pattern: str, address: str, skip: int = 0) -> None:
    local_hub.faults.append(Fault(pattern, status=307, times=99, skip=skip, headers={"Location": address}))


# The token -----------------------------------------------------------------------------------------------------------


def test_a_list_that_continues_elsewhere_is_refused(hub: Hub, local_hub: LocalHub, stranger: Stranger) -> None:
    publish(hub)
    lie(local_hub, "GET .*/tree/", Link=f'<{stranger.url}/api/models/x/tree/main?cursor=secret>; rel="next"')
    text = refusal(lambda: hub.resolve(REPOSITORY))
    assert f"names '{stranger.url}/api/models/x/tree/main' as the list's next page" in text
    assert not stranger.heard
    lie(local_hub, "GET .*/commits/", Link=f'<{stranger.url}/>; rel="next"')
    assert "as the list's next page" in refusal(lambda: hub.commits(REPOSITORY))
    assert not stranger.heard


@pytest.mark.parametrize("address", ["http://[", "//elsewhere.example/x", "/files"])
def test_a_list_continues_only_as_a_list_at_the_same_origin(address: str, hub: Hub, local_hub: LocalHub) -> None:
    publish(hub)
    lie(local_hub, "GET .*/tree/", Link=f'<{address}>; rel="next"')
    assert "it was not followed" in refusal(lambda: hub.resolve(REPOSITORY))


def test_a_list_of_several_pages_is_read(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.local.hub.files._PAGE_ENTRIES", 2)
    publish(hub)
    assert {file.path for file in hub.resolve(REPOSITORY).files} == {*FILES, ".gitattributes"}


def test_a_redirect_elsewhere_goes_without_token_and_cookies(hub: Hub, local_hub: LocalHub, stranger: Stranger) -> None:
    # Cookies know no ports: what this Hub sets would go to every server on 127.0.0.1.
    local_hub.faults.append(Fault("whoami", status=None, headers={"Set-Cookie": f"session={LOCAL_TOKEN}; Path=/"}))
    hub.whoami()
    redirect(local_hub, "whoami", f"{stranger.url}/api/whoami-v2")
    stranger.body = b'{"name": "stranger"}'
    assert hub.whoami() == "stranger"
    stranger.assert_asked_without_token("GET")


def test_a_redirect_within_the_hub_keeps_the_token(hub: Hub, local_hub: LocalHub) -> None:
    redirect(local_hub, "whoami-v2$", "/api/whoami-v2?again")
    assert hub.whoami() == "mergeline"


def test_another_hub_that_the_library_knows_gets_no_token(
    hub: Hub, local_hub: LocalHub, stranger: Stranger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # huggingface_hub lets huggingface.co, hf.co and the HF_ENDPOINT it was imported with have every Hub's token.
    commit = publish(hub)
    pinned = hub.resolve(REPOSITORY)
    port = int(stranger.url.rpartition(":")[2])
    monkeypatch.setattr("huggingface_hub.utils._http._HUB_ORIGINS", frozenset({("http", "127.0.0.1", port)}))
    stranger.body, stranger.headers = CONFIG, {"X-Repo-Commit": commit, "ETag": f'"{"0" * 40}"'}
    redirect(local_hub, "/resolve/", f"{stranger.url}/config.json")
    directory = hub.download(pinned, ["config.json"], tmp_path / "cache")
    assert (directory / "config.json").read_bytes() == CONFIG
    stranger.assert_asked_without_token("HEAD", "GET")


def test_content_elsewhere_is_read_without_token(hub: Hub, local_hub: LocalHub, stranger: Stranger) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    stranger.body = CONFIG
    redirect(local_hub, "/resolve/", f"{stranger.url}/config.json")
    assert hub.read_file(pinned, "config.json") == CONFIG
    assert hub.read_range(pinned, "config.json", 0, len(CONFIG)) == CONFIG
    assert hub.read_range(pinned, "config.json", 0, len(CONFIG)) == CONFIG
    stranger.assert_asked_without_token("GET", "GET", "GET")


def test_uploads_are_sent_and_verified_elsewhere_without_token(
    hub: Hub, local_hub: LocalHub, stranger: Stranger
) -> None:
    hub.create_repository(REPOSITORY, is_private=True)
    action = {"href": f"{stranger.url}/put", "header": {"Authorization": "not ours"}}
    actions = {"upload": action, "verify": {"href": f"{stranger.url}/verify"}}
    lie(local_hub, "objects/batch", {"objects": [{"oid": SHA256, "size": len(WEIGHTS), "actions": actions}]})
    hub.stage(REPOSITORY, uploads({"model.safetensors": WEIGHTS}))
    stranger.assert_asked_without_token("PUT", "POST")


def test_parts_are_uploaded_and_joined_elsewhere_without_token(
    hub: Hub, local_hub: LocalHub, stranger: Stranger
) -> None:
    hub.create_repository(REPOSITORY, is_private=True)
    parts = {"chunk_size": "200000", "1": f"{stranger.url}/1", "2": f"{stranger.url}/2"}
    actions = {"upload": {"href": f"{stranger.url}/complete", "header": parts}}
    lie(local_hub, "objects/batch", {"objects": [{"oid": SHA256, "size": len(WEIGHTS), "actions": actions}]})
    hub.stage(REPOSITORY, uploads({"model.safetensors": WEIGHTS}))
    stranger.assert_asked_without_token("PUT", "PUT", "POST")


@pytest.mark.parametrize("pattern", ["POST .*/preupload/", "POST .*/objects/batch", "POST .*/commit/"])
def test_a_write_redirected_elsewhere_goes_without_token(
    pattern: str, hub: Hub, local_hub: LocalHub, stranger: Stranger
) -> None:
    hub.create_repository(REPOSITORY, is_private=True)
    parent = hub.resolve(REPOSITORY).commit
    redirect(local_hub, pattern, f"{stranger.url}/taken")
    stranger.body = b"{}"
    with pytest.raises(Exception, match=r"."):  # whatever the library makes of an empty answer
        hub.commit(hub.stage(REPOSITORY, uploads(FILES)), parent=parent, title="Add files", description="")
    stranger.assert_asked_without_token("POST")


@pytest.mark.parametrize("address", ["{stranger}/token", "http://{there}\\@{here}/token", "//{there}/token"])
@pytest.mark.parametrize("header", ["Link", "X-Xet-Refresh-Route"])
def test_xet_tokens_are_asked_of_the_hub_alone(
    header: str, address: str, xet_hub: LocalHub, stranger: Stranger, tmp_path: Path
) -> None:
    hub = Hub(xet_hub.endpoint)
    commit = publish(hub)
    pinned = hub.resolve(REPOSITORY)
    # Without a Xet hash in the listing the library asks the file's own address, and believes what that says.
    lie(xet_hub, "GET .*/tree/", [{**entry, "xetHash": None} for entry in listing(xet_hub, commit)])
    there, here = stranger.url.removeprefix("http://"), xet_hub.endpoint.removeprefix("http://")
    address = address.format(stranger=stranger.url, there=there, here=here)
    link = f'<{address}>; rel="xet-auth"' if header == "Link" else '</>; rel="other"'
    xet_hub.faults.append(
        Fault("HEAD .*/resolve/", status=None, times=99, headers={"Link": link, "X-Xet-Refresh-Route": address})
    )
    text = refusal(lambda: hub.download(pinned, ["model.safetensors"], tmp_path / "cache"))
    assert "as the place for Xet tokens" in text
    assert not stranger.heard


def test_a_xet_store_elsewhere_gets_its_own_token_alone(xet_hub: LocalHub, stranger: Stranger, tmp_path: Path) -> None:
    hub = Hub(xet_hub.endpoint)
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    stranger.status = 404  # hf_xet tries anything else again for minutes
    lie(xet_hub, "/xet-read-token/", X_Xet_Cas_Url=stranger.url, X_Xet_Access_Token="for the store")
    with pytest.raises(MergelineError):
        hub.download(pinned, ["model.safetensors"], tmp_path / "cache")
    assert stranger.heard
    assert LOCAL_TOKEN not in repr(stranger.heard)
    assert "for the store" in repr(stranger.heard)


@pytest.mark.parametrize("direction", ["read", "write"])
def test_a_xet_token_address_that_redirects_takes_no_token_along(
    direction: str, xet_hub: LocalHub, stranger: Stranger, tmp_path: Path
) -> None:
    hub = Hub(xet_hub.endpoint)
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    pattern = f"/xet-{direction}-token/"
    stranger.status = 404
    stranger.body = json.dumps({"casUrl": stranger.url, "accessToken": "for the store", "exp": 1 << 40}).encode()
    if direction == "read":
        # The library's own answer has expired: hf_xet asks anew, with the Hub's token, and is sent elsewhere.
        xet_hub.faults.append(Fault(pattern, status=None, skip=1, headers={"X-Xet-Token-Expiration": "1"}))
        redirect(xet_hub, pattern, f"{stranger.url}/token", skip=1)
        with pytest.raises(MergelineError):
            hub.download(pinned, ["model.safetensors"], tmp_path / "cache")
    else:
        redirect(xet_hub, pattern, f"{stranger.url}/token")
        with pytest.raises(MergelineError):
            hub.stage(REPOSITORY, uploads({"other.safetensors": os.urandom(100_000)}))
    (asked,) = stranger.heard
    assert asked[1] == "/token"
    assert "x-xet-session-id" in asked[2]  # hf_xet, which has a client of its own
    assert LOCAL_TOKEN not in repr(stranger.heard)


@pytest.mark.parametrize(
    ("address", "is_home"),
    [
        ("https://hub.example/api/whoami-v2", True),
        ("https://HUB.example:443/elsewhere", True),
        ("https://user:password@hub.example/", True),
        ("http://hub.example/", False),
        ("http://hub.example:443/", False),
        ("https://hub.example:444/", False),
        ("https://hub.example.elsewhere/", False),
        ("https://cdn.hub.example/", False),
        ("https://hub.example@elsewhere/", False),
        ("https://elsewhere/hub.example/", False),
    ],
)
def test_home_is_scheme_host_and_port(address: str, is_home: bool) -> None:
    from huggingface_hub.utils import get_session, httpx

    request = httpx.Request("GET", address, headers={"Authorization": f"Bearer {LOCAL_TOKEN}"})
    with guarded("https://hub.example/prefix"):
        for hook in get_session().event_hooks["request"]:
            hook(request)
    assert (LOCAL_TOKEN in repr(request.headers.raw)) == is_home


# Paths ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def treasure(tmp_path: Path) -> Path:
    """A file of the user's beside the cache."""
    path = tmp_path / "home" / "treasure"
    path.parent.mkdir()
    path.write_text("mine")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "home" / "cache"


def assert_untouched(treasure: Path) -> None:
    assert treasure.read_text() == "mine"
    assert {path.name for path in treasure.parent.iterdir()} <= {"treasure", "cache"}


ESCAPES = [
    "{treasure}",
    "../../../treasure",
    'W/"../../../treasure"',
    '"{treasure}"',
    '"',
    f"../../../{'0' * 64}",
    "0" * 39,
    "",
    "treasure",
]


HEADERS = ["ETag", "X-Linked-ETag", "X-Repo-Commit", "X-Xet-Hash"]


# An empty X-Linked-ETag is as good as none: the library takes the ETag.
@pytest.mark.parametrize(
    ("header", "escape"), [pair for pair in product(HEADERS, ESCAPES) if pair != ("X-Linked-ETag", "")]
)
def test_metadata_that_is_no_digest_writes_nothing(
    header: str, escape: str, hub: Hub, local_hub: LocalHub, treasure: Path, cache: Path
) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    lie(local_hub, "HEAD .*/resolve/", **{header: escape.format(treasure=treasure)})
    text = refusal(lambda: hub.download(pinned, ["config.json"], cache))
    assert "expected hexadecimal digits; nothing was written" in text
    assert_untouched(treasure)
    assert not list(cache.rglob("blobs/*"))


def test_a_missing_file_s_commit_makes_no_folder(hub: Hub, local_hub: LocalHub, treasure: Path, cache: Path) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": f"{treasure.parent}/made"}
    local_hub.faults.append(Fault("HEAD .*/resolve/", status=404, headers=headers))
    assert "as a commit" in refusal(lambda: hub.download(pinned, ["config.json"], cache))
    assert_untouched(treasure)


@pytest.mark.parametrize("escape", ["{treasure}", "../../../treasure"])
@pytest.mark.parametrize("is_second", [False, True], ids=["first listing", "library's own listing"])
@pytest.mark.parametrize("field", ["oid", "lfs", "xetHash", "path"])
def test_a_listing_s_digests_and_paths_write_nothing(
    field: str, is_second: bool, escape: str, xet_hub: LocalHub, treasure: Path, cache: Path
) -> None:
    hub = Hub(xet_hub.endpoint)
    commit = publish(hub)
    pinned = hub.resolve(REPOSITORY)
    entries = listing(xet_hub, commit)
    (entry,) = [entry for entry in entries if entry["path"] == "model.safetensors"]
    entry[field] = escape = escape.format(treasure=treasure)
    if field == "lfs":
        entry[field] = {"oid": escape, "size": len(WEIGHTS), "pointerSize": 1}
    lie(xet_hub, "GET .*/tree/", entries)
    kind = RepositoryError if field == "path" else HubError

    def use() -> None:
        hub.download(pinned if is_second else hub.resolve(REPOSITORY), ["model.safetensors"], cache)

    assert escape in refusal(use, kind)
    assert_untouched(treasure)
    assert not list(cache.rglob("trees/*"))


def test_a_listing_that_is_redirected_is_checked_too(
    xet_hub: LocalHub, stranger: Stranger, treasure: Path, cache: Path
) -> None:
    hub = Hub(xet_hub.endpoint)
    commit = publish(hub)
    pinned = hub.resolve(REPOSITORY)
    entries = listing(xet_hub, commit)
    for entry in entries:
        entry["lfs"] = {"oid": str(treasure), "size": len(WEIGHTS), "pointerSize": 1}
    stranger.body = json.dumps(entries).encode()
    redirect(xet_hub, "GET .*/tree/", f"{stranger.url}/somewhere")
    assert "as the sha256 of" in refusal(lambda: hub.download(pinned, ["model.safetensors"], cache))
    assert_untouched(treasure)


@pytest.mark.parametrize("commit", ["../../treasure", "HEAD", "", None, 5])
def test_a_commit_that_is_no_commit_is_refused(commit: object, hub: Hub, local_hub: LocalHub) -> None:
    parent = publish(hub)
    local_hub.faults.append(
        Fault(
            "/commits/",
            status=None,
            body=json.dumps(
                [{"id": commit, "title": "", "message": "", "date": "2026-01-01T00:00:00.000Z", "authors": []}]
            ).encode(),
        )
    )
    assert "as a commit" in refusal(lambda: hub.commits(REPOSITORY))
    staged = hub.stage(REPOSITORY, uploads({"config.json": b"{}"}))
    lie(local_hub, "POST .*/commit/", {"commitOid": commit, "commitUrl": f"{hub.url}/{REPOSITORY}/commit/x"})
    assert "as a commit" in refusal(lambda: hub.commit(staged, parent=parent, title="t", description=""))


def test_a_refusal_during_an_upload_is_told_as_it_is(hub: Hub, local_hub: LocalHub) -> None:
    hub.create_repository(REPOSITORY, is_private=True)
    local_hub.faults.append(Fault("PUT /upload/", status=None, headers={"X-Repo-Commit": "../x"}))
    text = refusal(lambda: hub.stage(REPOSITORY, uploads({"model.safetensors": WEIGHTS})))
    assert text.startswith(f"{local_hub.cdn_endpoint}/upload/{SHA256} gives '../x' as a commit")


def test_a_file_of_another_commit_is_not_taken(hub: Hub, local_hub: LocalHub, cache: Path) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    lie(local_hub, "HEAD .*/resolve/", X_Repo_Commit="f" * 40)
    assert f"answers for commit {'f' * 40}" in refusal(lambda: hub.download(pinned, ["config.json"], cache))
    assert not list(cache.rglob("refs/*"))


def test_a_file_missing_from_a_second_listing_is_not_taken(xet_hub: LocalHub, cache: Path) -> None:
    hub = Hub(xet_hub.endpoint)
    commit = publish(hub)
    pinned = hub.resolve(REPOSITORY)
    lie(xet_hub, "GET .*/tree/", [entry for entry in listing(xet_hub, commit) if entry["path"] != "config.json"])
    assert "arrived twice with another size or sha256" in refusal(lambda: hub.download(pinned, ["config.json"], cache))


@pytest.mark.parametrize("use", ["read_file", "read_range", "download"])
def test_a_redirect_to_a_local_file_reads_nothing(
    use: str, hub: Hub, local_hub: LocalHub, treasure: Path, cache: Path
) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    headers = {"Location": treasure.as_uri(), "X-Repo-Commit": pinned.commit, "ETag": f'"{"0" * 40}"'}
    local_hub.faults.append(Fault("/resolve/", status=302, times=99, headers=headers))
    calls = {
        "read_file": lambda: hub.read_file(pinned, "config.json"),
        "read_range": lambda: hub.read_range(pinned, "config.json", 0, 4),
        "download": lambda: hub.download(pinned, ["config.json"], cache),
    }
    assert "mine" not in refusal(calls[use])
    assert_untouched(treasure)


# Links in the cache --------------------------------------------------------------------------------------------------


def test_a_link_out_of_the_cache_is_removed_but_not_followed(hub: Hub, treasure: Path, cache: Path) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    path = hub.download(pinned, ["model.safetensors"], cache) / "model.safetensors"
    path.unlink()
    path.symlink_to(treasure)
    path = hub.download(pinned, ["model.safetensors"], cache) / "model.safetensors"
    assert path.read_bytes() == WEIGHTS
    assert_untouched(treasure)


def test_a_blob_that_leads_out_of_the_cache_is_removed_but_not_followed(hub: Hub, treasure: Path, cache: Path) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    path = hub.download(pinned, ["model.safetensors"], cache) / "model.safetensors"
    blob = path.parent / path.readlink()
    blob.unlink()
    blob.symlink_to(treasure)
    path = hub.download(pinned, ["model.safetensors"], cache) / "model.safetensors"
    assert path.read_bytes() == WEIGHTS
    assert_untouched(treasure)


def test_a_folder_that_leads_out_of_the_cache_is_neither_cleared_nor_written(
    hub: Hub, treasure: Path, cache: Path
) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    directory = hub.download(pinned, ["config.json"], cache)
    outside = treasure.parent / "cache" / "outside"
    outside.mkdir()
    (directory / "extra").symlink_to(outside)
    assert "outside the cache" in refusal(lambda: hub.download(pinned, ["extra/notes.json"], cache))
    assert not list(outside.iterdir())
    (outside / "notes.json").write_text("mine too")
    assert "outside the cache" in refusal(lambda: hub.download(pinned, ["extra/notes.json"], cache))
    assert (outside / "notes.json").read_text() == "mine too"


def test_blobs_that_lead_out_of_the_cache_are_not_written(hub: Hub, treasure: Path, cache: Path) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    repository = hub.download(pinned, ["config.json"], cache).parents[1]
    (repository / "blobs").rename(cache / "outside")
    (repository / "blobs").symlink_to(cache / "outside")
    before = set((cache / "outside").iterdir())
    assert "outside the cache" in refusal(lambda: hub.download(pinned, ["extra/notes.json"], cache))
    assert set((cache / "outside").iterdir()) == before


def test_what_was_verified_is_not_noted_outside_the_cache(hub: Hub, treasure: Path, cache: Path) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    repository = hub.download(pinned, ["model.safetensors"], cache).parents[1]
    (record,) = (repository / "mergeline-verified").iterdir()
    record.unlink()
    record.symlink_to(treasure)
    hub.download(pinned, ["model.safetensors"], cache)
    assert_untouched(treasure)


def test_a_repository_s_folder_may_lie_on_another_disk(hub: Hub, cache: Path, tmp_path: Path) -> None:
    publish(hub)
    pinned = hub.resolve(REPOSITORY)
    (tmp_path / "disk").mkdir()
    cache.mkdir(parents=True)
    (cache / "models--mergeline--model").symlink_to(tmp_path / "disk")
    path = hub.download(pinned, ["model.safetensors"], cache) / "model.safetensors"
    path.write_bytes(bytes(len(WEIGHTS)))
    assert (hub.download(pinned, ["model.safetensors"], cache) / "model.safetensors").read_bytes() == WEIGHTS


# The client ----------------------------------------------------------------------------------------------------------


def test_the_program_s_own_client_is_kept_and_free_outside_of_calls(
    hub: Hub, local_hub: LocalHub, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import _http, get_session, httpx, set_client_factory

    before = _http._GLOBAL_CLIENT_FACTORY
    try:
        set_client_factory(lambda: httpx.Client(headers={"X-Proxy-Key": "of the program"}, follow_redirects=True))
        redirect(local_hub, "whoami", f"{stranger.url}/api/whoami-v2")
        stranger.body = b'{"name": "stranger"}'
        hub.whoami()
        stranger.assert_asked_without_token("GET")
        assert stranger.heard[0][2]["X-Proxy-Key"] == "of the program"
        get_session().get(stranger.url, headers={"Authorization": "of the program"})
        assert stranger.heard[1][2]["Authorization"] == "of the program"
    finally:
        set_client_factory(before)
