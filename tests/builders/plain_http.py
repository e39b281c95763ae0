"""Requests without a client library."""

from http.client import HTTPConnection, HTTPResponse


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
