"""Requests that the local Hub is sent in its tests, and what they are about."""

from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

REPOSITORY = "mergeline/model"


def files_under(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def ask(
    address: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[HTTPResponse, bytes]:
    """Ask without any client library: no redirects followed, nothing added."""
    connection = HTTPConnection(address.removeprefix("http://"))
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content
