"""The real Chromium of this machine, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, expect, sync_playwright

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# What a page shows may wait for a model, and the machine may be busy.
expect.set_options(timeout=30_000)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window, which asks nobody for anything by itself.

    Raises:
        FileNotFoundError: there is no Chromium.
    """
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        raise FileNotFoundError(f"This needs one of {', '.join(_BROWSERS)}.")
    arguments = ["--disable-background-networking", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=arguments, chromium_sandbox=os.geteuid() != 0
        )
        yield browser
        browser.close()
