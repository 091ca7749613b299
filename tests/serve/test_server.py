"""What the server answers, and what it does not."""

import http.client
import io
import json
import socket
import struct
import threading

import pytest
from PIL import Image

from imagenet_jax.errors import UserError
from imagenet_jax.serve import server
from imagenet_jax.serve.site import UPLOADS, Asked, Site, parse


def ask(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def test_searches_by_word_and_by_item(port):
    response, content = ask(port, "GET", "/search?word=entity")
    assert response.status == 200
    found = json.loads(content)
    assert [found["measure"], len(found["results"])] == ["probability", 12]
    _, content = ask(port, "GET", "/search?item=3")
    found = json.loads(content)
    assert found["measure"] == "similarity"
    assert found["picture"]["name"] == "<b>03.png"
    assert len(found["picture"]["top"]) == 5
    assert found["picture"]["top"][0]["path"][0] == "entity"


def test_the_way_in_is_a_sample_of_all(site, monkeypatch):
    assert [len(site.search(Asked())["results"]), site.search(Asked())["measure"]] == [12, ""]
    monkeypatch.setattr("imagenet_jax.serve.site.RESULTS", 4)
    assert [r["row"] for r in site.search(Asked())["results"]] == [0, 3, 7, 11]


def test_a_picture_is_not_among_those_like_it(site):
    rows = [r["row"] for r in site.search(Asked(item=3))["results"]]
    assert sorted(rows) == [i for i in range(12) if i != 3]


def test_an_uploaded_picture_is_searched_for_and_explained(port, pictures):
    data = (pictures / "<b>05.png").read_bytes()
    response, content = ask(port, "POST", "/picture", data, Content_Type="application/octet-stream")
    assert response.status == 200
    key = json.loads(content)["picture"]
    found = json.loads(ask(port, "GET", f"/search?picture={key}")[1])
    assert found["results"][0]["score"] == pytest.approx(1, abs=1e-5)
    response, image = ask(port, "GET", f"/image?picture={key}")
    assert Image.open(io.BytesIO(image)).size == (32, 32)
    response, heat = ask(port, "GET", f"/heat?picture={key}&label=7")
    assert response.getheader("Content-Type") == "image/png"
    assert Image.open(io.BytesIO(heat)).mode == "RGBA"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/secret.png", 404),
        ("/../secret.png", 404),
        ("/image?item=../secret.png", 400),
        ("/image?item=12", 400),
        ("/image?item=-1", 400),
        ("/image?item=%D9%A3", 400),
        ("/image?picture=../../secret", 400),
        ("/image", 400),
        ("/heat?item=0&label=1000", 400),
        ("/heat?item=0&label=x", 400),
        ("/search?word=" + "x" * 101, 400),
        ("/search?name=x", 400),
        ("/search?category=n0", 400),
        ("/search?word=dog&sense=n02012849", 400),
        ("/search?" + "&".join(f"a{i}=1" for i in range(20)), 400),
    ],
)
def test_nothing_but_the_pictures_of_the_index_by_number(port, path, status):
    response, content = ask(port, "GET", path)
    assert response.status == status
    assert b"secret" not in content.replace(b"secret.png", b"").replace(b"'../../secret'", b"")
    assert json.loads(content)["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_pages_cannot_ask(port, headers, status):
    assert ask(port, "GET", "/search?word=entity", **headers)[0].status == status


def test_an_address_that_is_none_is_refused_without_a_traceback(port, capsys):
    assert ask(port, "GET", "http://[x/", Host=f"127.0.0.1:{port}")[0].status == 400
    assert capsys.readouterr().err == ""


def test_localhost_is_us_too(port):
    assert ask(port, "GET", "/", Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0].status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Type": "text/plain"}, 415),  # what a form on another page could send
        ({"Content_Type": "application/octet-stream", "Content_Length": str(server.MAX_UPLOAD + 1)}, 413),
        ({"Content_Type": "application/octet-stream", "Content_Length": "-1"}, 411),
        ({"Content_Type": "application/octet-stream", "Transfer_Encoding": "chunked"}, 411),
    ],
)
def test_uploads_are_bounded_and_ours(port, headers, status):
    assert ask(port, "POST", "/picture", b"x", **headers)[0].status == status


def test_what_is_no_picture_is_said(port):
    response, content = ask(port, "POST", "/picture", b"no picture", Content_Type="application/octet-stream")
    assert response.status == 400
    assert "does not decode" in json.loads(content)["error"]


def test_a_browser_that_goes_on_before_the_answer_is_no_fault(port, site, capsys, monkeypatch):
    asked, gone = threading.Event(), threading.Event()

    def slow(*args):
        asked.set()
        gone.wait(10)
        return b"x" * (1 << 20)

    monkeypatch.setattr(site, "image", slow)
    with socket.create_connection(("127.0.0.1", port)) as browser:
        browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets it, as browsers do
        browser.sendall(f"GET /image?item=0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        asked.wait(10)
    gone.set()
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(10)
    assert capsys.readouterr().err == ""


def test_a_browser_keeps_pictures_of_this_index_alone(port):
    """They are named by number: another index on the same port has others under the same."""
    key = json.loads(ask(port, "GET", "/search")[1])["key"]
    assert ask(port, "GET", f"/image?item=0&of={key}")[0].getheader("Cache-Control") == "private, max-age=600"
    assert ask(port, "GET", "/image?item=0&of=other")[0].getheader("Cache-Control") == "no-store"
    assert b"&of=${key}" in ask(port, "GET", "/")[1]


def test_the_policy_lets_the_page_run_its_own_script_alone(port):
    response, content = ask(port, "GET", "/")
    policy = response.getheader("Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    head = content.split(b"<script>")[0].replace(b"http:%2F%2Fwww.w3.org%2F2000%2Fsvg", b"")  # a name, which nobody fetches
    assert b"http" not in head  # nothing from elsewhere
    assert b"//" not in head


def test_it_binds_loopback_alone(site):
    serving = server.make_server(site, 0)
    try:
        assert serving.server_address[0] == "127.0.0.1"
        with pytest.raises(UserError, match=r"Port \d+ cannot be used"):
            server.make_server(site, serving.server_address[1])
    finally:
        serving.server_close()


def test_uploads_do_not_pile_up(site, pictures):
    fresh = Site(site.index, site._source, site._embedder)
    query = site._embedder.one((pictures / "<b>00.png").read_bytes())
    for i in range(UPLOADS + 5):
        fresh._uploads[str(i)] = query
    fresh.add((pictures / "<b>01.png").read_bytes())
    assert len(fresh._uploads) == UPLOADS
    with pytest.raises(UserError, match="not here any more"):
        fresh.image(Asked(picture="0"))


def test_word_and_category_are_both_kept(site):
    assert len(site.search(parse({"word": "entity"}))["results"]) == 12
    within = site.search(parse({"word": "dog", "category": "n01503061"}))
    assert within["category"] == "bird"
    assert within["results"] == []  # no dog is a bird
