"""A real browser for the pages that people look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

import tests.fixtures.prefect_settings  # noqa: F401

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    # A browser that looks for updates asks addresses that a test must not need.
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

PATIENCE_MS = 60_000.0
"""How long a page may take to show what a test waits for: servers share slow cores with the browser."""

LOCAL_HOSTS = {"", "127.0.0.1", "localhost"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window; closed before other tests run event loops of their own."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def outside_requests() -> list[str]:
    """What the page asked of other machines; all of it was refused."""
    return []


@pytest.fixture
def page(browser: Browser, outside_requests: list[str]) -> Iterator[Page]:
    """An empty page that reaches this machine alone."""

    def route(request: Route) -> None:
        address = urlsplit(request.request.url)
        if address.hostname is None or address.hostname in LOCAL_HOSTS:
            request.continue_()
        else:
            outside_requests.append(request.request.url)
            request.abort()

    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.route("**/*", route)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    yield page
    context.close()


@pytest.fixture
def keep_screenshot(page: Page) -> Callable[[str], None]:
    """Keep what the page shows as ``NAME.png`` where ``$MERGELINE_SCREENSHOTS`` says, if it does (docs/screenshots)."""

    def keep(name: str) -> None:
        if folder := os.environ.get("MERGELINE_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"{name}.png")

    return keep
