"""Headless Chromium for tests; without it they are skipped."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """Start Debian's Chromium, driven by playwright. flags: more words of its command line."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("the program chromium is not installed")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playing:
        started = playing.chromium.launch(executable_path=program, args=["--no-sandbox", *flags])
        yield started
        started.close()
