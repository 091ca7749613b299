"""A page being served, and a headless Chromium to look at it, driven by its own protocol over two pipes."""

import fcntl
import json
import os
import pathlib
import subprocess
import threading
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagenet_jax import embed, embedder
from imagenet_jax.retrieval.store import Index
from imagenet_jax.serve import server
from imagenet_jax.serve.site import Site


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> pathlib.Path:
    """A folder of twelve pictures, and a secret beside it."""
    rng = np.random.default_rng(1)
    place = tmp_path_factory.mktemp("served")
    (place / "pictures").mkdir()
    (place / "secret.png").write_bytes(b"secret")
    for i in range(12):
        pixels = rng.integers(0, 256, (40, 50, 3)) * rng.uniform(0, 1, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(place / "pictures" / f"<b>{i:02d}.png")
    return place / "pictures"


@pytest.fixture(scope="session")
def site(pictures, small_weights, tmp_path_factory) -> Site:
    out = tmp_path_factory.mktemp("index")
    embed.main([f"--weights={small_weights}", f"--folder={pictures}", f"--out={out}"])
    index = Index(out)
    return Site(index, embed.open_data(index.manifest["data"]), embedder.for_queries(index))


@pytest.fixture(scope="session")
def port(site):
    """Of a server that runs in a thread."""
    serving = server.make_server(site, 0)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield serving.server_address[1]
    serving.shutdown()
    serving.server_close()
    thread.join(10)


class Browser:
    """Headless Chromium: `call` sends a command of the DevTools protocol and waits for its answer."""

    def __init__(self, executable: str, profile: pathlib.Path):
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (to_read, to_write)]  # out of the way of 3 and 4, which Chromium uses
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        shell = ["bash", "-c", f'exec "$@" 3<&{high[0]} 4>&{high[1]}', "bash", executable, *flags, "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(shell, pass_fds=high, **quiet)
        for fd in (to_read, to_write, *high):
            os.close(fd)
        self._received, self._number, self._session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": self._session} if self._session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._received:
                more = os.read(self._from, 1 << 20)
                assert more, "Chromium has ended"
                self._received += more
            one, _, self._received = self._received.partition(b"\0")
            answer = json.loads(one)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        out = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in out, out
        return out["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until an expression is true."""
        for _ in range(600):
            if self.run(condition):
                return
            time.sleep(0.05)
        raise AssertionError(f"never: {condition}; {self.run('document.body.innerText')}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)


@pytest.fixture(scope="session")
def browser(chromium, tmp_path_factory):
    browser = Browser(chromium, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()
