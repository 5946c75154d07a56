"""Behind a real nginx, configured as the document says, under a path of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect as plain_connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from streaming.support.guard import Limits
from streaming.support.tls import client_context
from streaming.transports.websocket import connect
from streaming.wire.messages import Hello, Join
from tests import ROOT
from tests.streaming.web.test_pages import Radio
from tests.support.browser import Browser, browser  # noqa: F401
from tests.support.certificates import make_certificate
from tests.support.nginx import Nginx, nginx  # noqa: F401

DOCUMENT = ROOT / "docs" / "reliability.md"
SECRET = "correct horse"


def documented(server_port: int, cert: Path | None = None, key: Path | None = None) -> str:
    """The document's server block, with our ports and files; without a certificate plain."""
    (block,) = re.findall(r"```nginx\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    block = block.replace("127.0.0.1:8765", f"127.0.0.1:{server_port}")
    if cert is None:
        block = re.sub(r"\n *ssl_\w+ .*", "", block).replace("443 ssl", "127.0.0.1:PORT")
    else:
        block = block.replace("443 ssl", "127.0.0.1:PORT ssl")
        block = block.replace("/etc/ssl/radio.pem", str(cert)).replace(
            "/etc/ssl/radio.key", str(key)
        )
    return block


@pytest.fixture
def radio() -> Iterator[Radio]:
    """A sender that trusts the proxy, and has room for two connections from an address."""
    with Radio(proxies=["127.0.0.1"], limits=Limits(per_address=2)) as running:
        yield running


async def hello_of(url: str, **options: object) -> Hello:
    async with await connect(url, **options) as connection:  # type: ignore[arg-type]
        await connection.send(Join())
        async for data in connection:
            message = data
            assert isinstance(message, Hello)
            return message
    raise AssertionError("no hello")


@pytest.mark.parametrize("path", ["/radio", "/radio/"])
@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_stream_is_heard_under_a_path(radio, nginx, tmp_path, path, encrypted):  # noqa: F811
    files = make_certificate(tmp_path) if encrypted else (None, None)
    proxy = nginx(documented(radio.port, *files))
    url = f"{'wss' if encrypted else 'ws'}://127.0.0.1:{proxy.port}{path}"
    hello = await hello_of(url, tls=client_context(url, files[0]))
    assert hello.codec == "nano"


async def test_whoever_asks_through_the_proxy_is_not_the_proxy(radio, nginx):  # noqa: F811
    proxy = nginx(documented(radio.port))
    url = f"ws://127.0.0.1:{proxy.port}/radio/"
    lying = {"X-Forwarded-For": "198.51.100.1", "Forwarded": "for=198.51.100.2"}
    async with plain_connect(url, additional_headers=lying), plain_connect(url):
        with pytest.raises(InvalidStatus, match="503"):
            await plain_connect(url, additional_headers=lying)
        counted = radio.server.gate._by_group
        assert counted["127.0.0.1"] == 2
        assert not any(address.startswith("198.51.100") for address in counted)


async def test_only_pages_of_the_proxys_own_address_may_listen(radio, nginx):  # noqa: F811
    proxy = nginx(documented(radio.port))
    url = f"ws://127.0.0.1:{proxy.port}/radio/"
    for origin in (f"http://127.0.0.1:{proxy.port}", "https://radio.example"):
        async with plain_connect(url, origin=Origin(origin)):
            pass
    for origin in (f"http://127.0.0.1:{radio.port}", "https://evil.example"):
        with pytest.raises(InvalidStatus, match="403"):
            await plain_connect(url, origin=Origin(origin))


def test_the_page_works_under_a_path(
    browser: Browser,  # noqa: F811
    nginx: Callable[[str], Nginx],  # noqa: F811
) -> None:
    with Radio(SECRET, proxies=["127.0.0.1"]) as radio:
        proxy = nginx(documented(radio.port))
        browser.show()
        browser.open(f"http://127.0.0.1:{proxy.port}/radio")
        assert browser.driver.current_url.endswith("/radio/")
        field = browser.driver.find_element("id", "access-token")
        browser.until(field.is_displayed)
        field.send_keys(SECRET + "\n")
        browser.until(lambda: browser.text("#state") == "live")
        browser.until(lambda: browser.text("#listeners") == "1")
        assert browser.text("#command").endswith(f"ws://127.0.0.1:{proxy.port}/radio --play")
        refused = [line for line in browser.complaints() if "401" not in line]
        assert refused == []
