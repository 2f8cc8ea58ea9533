"""HTTP clients made to break the pages of `tamiyo serve`: others are answered, and the service keeps deciding."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tamiyo.live import endpoints, service
from tamiyo.live.endpoints import Endpoints, Page
from tamiyo.live.service import Place, Service
from tests.tamiyo.live.conftest import client, oona, place  # noqa: F401 - fixtures
from tests.tamiyo.live.stub import (
    CONFIG,
    StubPolicy,
    commands,
    get,
    get_json,
    holder_with,
    pending,
    running,
    send_packet,
    wait_for,
)

FEW, MANY = 40, 300


@pytest.fixture
def serving(place: Place, client: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:  # noqa: F811
    monkeypatch.setattr(service, "Holder", holder_with(StubPolicy()))
    with running(place, CONFIG) as found:
        wait_for(lambda: get(f"{found.url}/readyz")[0] == 200)
        yield found


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def connected(url: str, count: int) -> list[socket.socket]:
    """So many open connections; those that the machine has no room for are left out."""
    found = []
    for _ in range(count):
        with suppress(OSError):
            found.append(socket.create_connection(address(url), timeout=30))
    return found


def said(url: str, request: bytes) -> bytes:
    """What comes back until the service hangs up; nothing, if it does so before it answers."""
    found = b""
    with suppress(OSError), socket.create_connection(address(url), timeout=60) as one:
        one.sendall(request)
        one.shutdown(socket.SHUT_WR)
        while chunk := one.recv(65536):
            found += chunk
    return found


def still_works(found: Service, client: Any, number: int) -> None:  # noqa: F811
    """It answers another client, and decides."""
    assert get(f"{found.url}/healthz")[0] == 200
    send_packet(client, number)
    wait_for(lambda: any(command.annotations.get("packet_id") == f"p-{number}" for command in commands(client)))
    wait_for(lambda: pending(client) == 0)
    assert get(f"{found.url}/healthz")[0] == 200


@pytest.mark.parametrize("opening", [b"", b"G", b"GET /healthz HTTP/1.1\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-a: "])
def test_clients_that_never_end_their_request_keep_nobody_out(serving: Service, client: Any, opening: bytes) -> None:  # noqa: F811
    slow = connected(serving.url, MANY)
    for one in slow:
        with suppress(OSError):
            one.sendall(opening)
    try:
        for number in range(3):
            still_works(serving, client, number)
    finally:
        for one in slow:
            one.close()
    still_works(serving, client, 9)


def test_a_client_that_sends_a_byte_now_and_then_keeps_nobody_out(serving: Service, client: Any) -> None:  # noqa: F811
    done = threading.Event()

    def drip() -> None:
        slow = connected(serving.url, FEW)
        while not done.is_set():
            for number, one in enumerate(slow):
                try:
                    one.sendall(b"X")
                except OSError:
                    with suppress(OSError):
                        slow[number] = socket.create_connection(address(serving.url), timeout=30)
            done.wait(0.02)
        for one in slow:
            one.close()

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        for number in range(5):
            still_works(serving, client, number)
    finally:
        done.set()
        thread.join()


def test_a_client_that_never_reads_its_answer_keeps_nobody_out(serving: Service, client: Any, place: Place) -> None:  # noqa: F811
    (place.home / "panel.html").write_bytes(b"x" * (64 << 20))
    deaf = connected(serving.url, FEW)
    for one in deaf:
        with suppress(OSError):
            one.sendall(b"GET /panel HTTP/1.1\r\nHost: x\r\n\r\n")
    try:
        still_works(serving, client, 1)
    finally:
        for one in deaf:
            one.close()


REQUESTS = {
    "a line of a megabyte": b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\n\r\n",
    "a header of a megabyte": b"GET /healthz HTTP/1.1\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n",
    "ten thousand headers": b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    "bytes that are no text": b"\xff\xfe\x00\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version of nine nines": b"GET /healthz HTTP/999999999.9\r\n\r\n",
    "no version": b"GET /nothing\r\n",
    "a name that is none": b"GET http://127.0.0.1/../../etc/passwd HTTP/1.1\r\n\r\n",
    "a body that never comes": b"POST /healthz HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
    "chunks that never end": b"POST /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
    "two lengths": b"GET /healthz HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a header that is split": b"GET /healthz HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
    "a NUL": b"GET /healthz\x00 HTTP/1.1\r\n\r\n",
    "nothing": b"",
    "newlines": b"\r\n" * 5000,
}


@pytest.mark.parametrize("what", REQUESTS)
def test_requests_that_are_none_end_in_an_answer_or_nothing(serving: Service, client: Any, what: str) -> None:  # noqa: F811
    answer = said(serving.url, REQUESTS[what])
    assert b"root:" not in answer and b"Traceback" not in answer
    status = answer[:12].partition(b" ")[2][:3] if answer.startswith(b"HTTP/") else b""
    plain = answer == b"" or b"Error code:" in answer or answer.startswith(b"expected one of")  # as HTTP 0.9 has no status
    assert plain or status in (b"200", b"400", b"404", b"414", b"431", b"501", b"505")
    still_works(serving, client, 1)


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd", "/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/panel/../../.env",
        "/panel%00.html", "/panel/", "/PANEL", "/metrics/../healthz", "/healthz;x", "/.serve.lock", "/alerts.ndjson", "/", "*",
        "/panel\\..\\x", "/quarantine/oona", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_paths_name_pages_and_nothing_else(serving: Service, path: str) -> None:
    answer = said(serving.url, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.0 404")
    assert b"root:" not in answer
    assert b"expected one of /healthz, /readyz, /metrics, /panel" in answer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get", "<script>"])
def test_pages_are_only_read(serving: Service, client: Any, method: str) -> None:  # noqa: F811
    answer = said(serving.url, f"{method} /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.0 501")
    assert b"<script>" not in answer.partition(b"\r\n\r\n")[2]
    still_works(serving, client, 1)


def test_a_query_changes_no_page(serving: Service) -> None:
    status, body = get_json(f"{serving.url}/healthz?x=../../etc/passwd")
    assert (status, body["alive"]) == (200, True)


def test_every_page_under_many_clients_at_once(serving: Service, client: Any) -> None:  # noqa: F811
    faults: list[str] = []

    def ask(path: str) -> None:
        for _ in range(20):
            try:
                status, body = get(f"{serving.url}{path}")
                if path == "/metrics":
                    families = list(text_string_to_metric_families(body.decode()))
                    assert families and all(family.documentation for family in families)
                elif path != "/panel":
                    json.loads(body)
                assert status in (200, 503)
            except (OSError, AssertionError, ValueError) as fault:
                faults.append(f"{path}: {fault!r}")

    threads = [threading.Thread(target=ask, args=(path,)) for path in ("/healthz", "/readyz", "/metrics", "/panel") * 2]
    for thread in threads:
        thread.start()
    for number in range(20):
        send_packet(client, number)
    for thread in threads:
        thread.join()
    wait_for(lambda: len(commands(client)) >= 20 and pending(client) == 0)
    assert faults == []


def test_metrics_parse_whatever_messages_say(serving: Service, client: Any) -> None:  # noqa: F811
    """Labels come from our own words alone; what others send is in none of them."""
    for run in ('run-"quoted"\n\\', "run{x=1}", "\x00\x1b", "é" * 500):
        send_packet(client, 1, run=run)
    wait_for(lambda: len(commands(client)) >= 4 and pending(client) == 0)
    text = get(f"{serving.url}/metrics")[1].decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert "quoted" not in text and "é" not in text
    for family in families.values():
        assert family.documentation and family.type in ("counter", "gauge", "histogram")
    buckets = [s for s in families["tamiyo_latency_ms"].samples if s.name.endswith("_bucket") and s.labels["stage"] == "answer"]
    counts = [one.value for one in buckets]
    assert counts == sorted(counts) and buckets[-1].labels["le"] == "+Inf" and counts[-1] >= 4


@pytest.mark.parametrize("bundle", [True, False])
def test_readyz_says_why_not(place: Place, oona: Any, monkeypatch: pytest.MonkeyPatch, bundle: bool) -> None:  # noqa: F811
    monkeypatch.setattr(service, "Holder", holder_with(StubPolicy() if bundle else None))
    with running(place, CONFIG) as found:
        wait_for(lambda: get_json(f"{found.url}/readyz")[1]["reasons"] == ([] if bundle else ["no bundle serves"]))
        status, body = get_json(f"{found.url}/readyz")
        assert (status, body["ready"]) == ((200, True) if bundle else (503, False))
        oona.stop()
        reasons = wait_for(lambda: len(why := get_json(f"{found.url}/readyz")[1]["reasons"]) == 2 - bundle and why)
        assert any(reason.startswith("Oona: ") for reason in reasons)
        assert get(f"{found.url}/healthz")[0] == 200
        metrics = {f.name: f for f in text_string_to_metric_families(get(f"{found.url}/metrics")[1].decode())}
        assert metrics["tamiyo_ready"].samples[0].value == 0.0
        oona.start()


def test_the_oldest_of_too_many_clients_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_CLIENTS", 2)
    found = Endpoints("127.0.0.1", 0, {"/healthz": lambda: Page(b"alive")})
    try:
        first, second = connected(found.url, 2)
        wait_for(lambda: len(found._server._served) == 2)
        third = connected(found.url, 1)[0]
        assert first.recv(1) == b""  # hung up
        for one in (second, third):
            one.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert b"alive" in b"".join(iter(lambda sock=one: sock.recv(4096), b""))
            one.close()
        first.close()
        wait_for(lambda: not found._server._served)
    finally:
        found.close()


def test_a_slow_client_is_cut_off_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_LONGEST_S", 0.3)
    found = Endpoints("127.0.0.1", 0, {})
    try:
        (slow,) = connected(found.url, 1)
        ends = time.monotonic() + 60
        with suppress(OSError):
            while time.monotonic() < ends:
                slow.sendall(b"X")
                time.sleep(0.05)
        assert time.monotonic() < ends
        slow.close()
    finally:
        found.close()


def test_a_page_that_fails_costs_no_other() -> None:
    def broken() -> Page:
        raise RuntimeError("the page broke")

    found = Endpoints("127.0.0.1", 0, {"/broken": broken, "/healthz": lambda: Page(b"alive")})
    try:
        assert said(found.url, b"GET /broken HTTP/1.1\r\n\r\n") == b""
        assert said(found.url, b"GET /healthz HTTP/1.1\r\n\r\n").endswith(b"alive")
    finally:
        found.close()
