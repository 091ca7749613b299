"""HTTP for the page: loopback alone, and only what a browser on this machine asks from this page.

A page elsewhere must not reach it through the user's browser: the Host header must be ours (against DNS rebinding), an Origin,
where there is one, too, and an upload must have a type that other pages cannot send without asking first. There are no files: the
page itself, JSON, and pictures by number.
"""

import base64
import functools
import hashlib
import http.server
import importlib.resources
import json
import re
import sys
import urllib.parse
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from imagenet_jax import cli
from imagenet_jax.errors import RunError, UserError
from imagenet_jax.serve.site import Site, parse

ADDRESS = "127.0.0.1"
MAX_UPLOAD = 32 << 20  # bytes; the largest photograph of ImageNet has 15 MB
TIMEOUT = 30  # seconds without a byte from the browser
UPLOAD_TYPE = "application/octet-stream"


class Server(http.server.ThreadingHTTPServer):
    """A thread a connection, none of which outlives the process."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went on to another page before the answer came is no fault; the rest keeps its traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def make_server(site: Site, port: int) -> Server:
    """A server on 127.0.0.1, not serving yet; port 0 takes a free one. Raises UserError where the port is taken."""
    try:
        return Server((ADDRESS, port), functools.partial(Handler, site))
    except OSError as error:
        raise UserError(f"Port {port} cannot be used: {error.strerror}. Use another --port, or 0 for any.") from None


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    timeout = TIMEOUT
    server_version, sys_version = "imagenet_jax", ""
    protocol_version = "HTTP/1.1"

    def __init__(self, site: Site, *args: Any):
        self._site = site
        super().__init__(*args)

    def do_GET(self) -> None:
        """The page, a search, a picture, or where the model looks in it."""
        try:
            place = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(place.query, max_num_fields=10))
        except ValueError as error:
            return self._send(HTTPStatus.BAD_REQUEST, *_json({"error": f"This is no address: {error}."}))
        of = query.pop("of", "")  # tells pictures of one index from another's in the browser's cache
        match place.path:
            case "/":
                self._answer(lambda: (page()[0], "text/html; charset=utf-8"))
            case "/search":
                self._answer(lambda: _json(self._site.search(parse(query))))
            case "/image":
                self._answer(lambda: (self._site.image(parse(query)), "image/jpeg"), keep=of == self._site.key)
            case "/heat":
                label = query.pop("label", "")
                number = int(label) if re.fullmatch(r"\d{1,7}", label, re.ASCII) else -1
                self._answer(lambda: (self._site.heat(parse(query), number), "image/png"), keep=of == self._site.key)
            case _:
                self._send(HTTPStatus.NOT_FOUND, *_json({"error": "There is nothing here."}))
        return None

    def do_POST(self) -> None:
        """A picture to search with."""
        length = self.headers.get("Content-Length", "")
        refusal = None
        if urllib.parse.urlsplit(self.path).path != "/picture":
            refusal = HTTPStatus.NOT_FOUND
        elif self.headers.get("Content-Type") != UPLOAD_TYPE:
            refusal = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        elif not re.fullmatch(r"\d{1,12}", length, re.ASCII):
            refusal = HTTPStatus.LENGTH_REQUIRED
        elif int(length) > MAX_UPLOAD:
            refusal = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        if refusal:
            self.close_connection = True  # what it goes on to send is not read
            self._send(refusal, *_json({"error": f"{refusal.phrase}. A picture has {MAX_UPLOAD >> 20} MB at most."}))
        else:
            self._answer(lambda: _json({"picture": self._site.add(self.rfile.read(int(length)))}))

    def parse_request(self) -> bool:
        """Refuse what does not come from our own page before anything else looks at it."""
        if not super().parse_request():
            return False
        port = self.connection.getsockname()[1]
        ours = (f"{ADDRESS}:{port}", f"localhost:{port}")
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in ours and (origin is None or origin.removeprefix("http://") in ours):
            return True
        self.close_connection = True
        self._send(HTTPStatus.FORBIDDEN, *_json({"error": f"Open http://{ours[0]}/ itself."}))
        return False

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: what is searched for is nobody's business."""

    def _answer(self, content: Callable[[], tuple[bytes, str]], keep: bool = False) -> None:
        try:
            body, kind = content()
        except (UserError, RunError) as error:
            return self._send(HTTPStatus.BAD_REQUEST, *_json({"error": str(error)}))
        return self._send(HTTPStatus.OK, body, kind, keep)

    def _send(self, status: HTTPStatus, body: bytes, kind: str, keep: bool = False) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "private, max-age=600" if keep else "no-store",
            "Content-Security-Policy": page()[1],
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@functools.cache
def page() -> tuple[bytes, str]:
    """The page, and the policy that lets its own script and style run and nothing else."""
    html = importlib.resources.files("imagenet_jax.serve").joinpath("page.html").read_text("utf-8")
    hashes = {}
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        hashes[tag] = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return html.encode(), policy


def _json(content: Any) -> tuple[bytes, str]:
    return json.dumps(content).encode(), "application/json"


def run(server: Server, what: str) -> int:
    """Serve until Ctrl-C."""
    print(f"{what}: http://{ADDRESS}:{server.server_address[1]}/  (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
    return cli.FINISHED
