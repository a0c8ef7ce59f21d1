"""Headless Chromium for tests of pages, driven over its own protocol; tests that need it skip without."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

SECONDS = 60
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

# What a test asks of a page once it is loaded.
LOOK = """(async () => {
  const images = [...document.images];
  await Promise.all(images.map(image => image.decode().catch(() => null)));
  return {undrawn: images.filter(image => !image.naturalWidth).length, images: images.length,
          without_words: images.filter(image => !image.alt).length,
          width: document.documentElement.scrollWidth, title: document.title, text: document.body.innerText,
          background: getComputedStyle(document.body).backgroundColor};
})()"""


def look_at(address: str, *, width: int, script: str = LOOK, dark: bool = False, wait_for: str = "true"
            ) -> dict[str, Any]:
    """Open a page, wait until a script is true, run another one, and return its value with `problems` and `requests`.

    problems: messages of the console and exceptions. requests: addresses of all but data URIs and the page itself.
    """
    return asyncio.run(_look(address, width=width, script=script, dark=dark, wait_for=wait_for))


async def _look(address: str, *, width: int, script: str, dark: bool, wait_for: str) -> dict[str, Any]:
    import aiohttp

    # Chromium's helpers outlive it for a moment, in which they still write into its folder.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = subprocess.Popen([CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                                    "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            port = await _port(Path(folder) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                tabs = await (await session.get(f"http://127.0.0.1:{port}/json")).json()
                tab = next(tab for tab in tabs if tab["type"] == "page")
                async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    return await asyncio.wait_for(_visit(socket, address, width, script, dark, wait_for), SECONDS)
        finally:
            browser.terminate()
            browser.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(browser.pid, signal.SIGKILL)


async def _port(path: Path) -> int:
    for _ in range(10 * SECONDS):
        if path.is_file() and path.read_text().count("\n"):
            return int(path.read_text().splitlines()[0])
        await asyncio.sleep(0.1)
    raise TimeoutError("Chromium did not start")


async def _visit(socket: Any, address: str, width: int, script: str, dark: bool, wait_for: str) -> dict[str, Any]:
    events: list[Mapping[str, Any]] = []
    number = 0

    async def call(method: str, **parameters: Any) -> dict[str, Any]:
        nonlocal number
        number += 1
        mine = number
        await socket.send_str(json.dumps({"id": mine, "method": method, "params": parameters}))
        while True:
            message = json.loads((await socket.receive()).data)
            if message.get("id") == mine:
                assert "error" not in message, message
                return message["result"]
            events.append(message)

    async def value_of(expression: str) -> Any:
        result = await call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    for domain in ("Page", "Network", "Runtime", "Log"):
        await call(f"{domain}.enable")
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    await call("Emulation.setEmulatedMedia", features=[scheme])
    await call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    await call("Page.navigate", url=address)
    ready = f"document.readyState === 'complete' && document.URL !== 'about:blank' && ({wait_for})"
    # One expression, since a page may change between two of them.
    while (value := await value_of(f"{ready} ? ({script}) : null")) is None:
        await asyncio.sleep(0.1)
    kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    sent = [event["params"]["request"]["url"] for event in events if event.get("method") == "Network.requestWillBeSent"]
    return {**value, "problems": [event for event in events if event.get("method") in kinds],
            "requests": [url for url in sent if not url.startswith("data:") and url != address]}
