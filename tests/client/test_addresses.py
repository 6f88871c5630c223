"""Keys go to the hosts that the URLs name, as browsers read them, and to nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from morphogen.client import AsyncClient, Client
from morphogen.client.addresses import MAX_URL, ServerAddress


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("HTTPS://Host.Example:443/", "https://host.example"),
        ("https://host.example:8443/a/b/", "https://host.example:8443/a/b"),
        ("http://localhost:80", "http://localhost"),
        ("http://[0:0::1]:81", "http://[::1]:81"),
        (" https://b\xfccher.example. ", "https://xn--bcher-kva.example"),
    ],
)
def test_a_url_is_normalised(url: str, normal: str) -> None:
    assert ServerAddress.parse(url).url == normal


@pytest.mark.parametrize(
    "other",
    [
        "https://[::ffff:10.0.0.1]",
        "https://10.0.0.1.",
        "https://10\u30020.0.1",
        "https://\uff11\uff10.0.0.1:443/path",
    ],
)
def test_other_forms_of_one_address_are_one_server(other: str) -> None:
    with pytest.raises(ValueError, match=r"^the two URLs name one server"):
        Client(["https://10.0.0.1", other])


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "10.0.0.0x1", "."])
def test_hosts_that_only_the_system_reads_as_addresses_are_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"^a server's URL "):
        ServerAddress.parse(f"https://{host}")


@pytest.mark.parametrize(
    "urls",
    [
        ["https://a.example", "https://a.example"],
        ["https://a.example", "https://A.EXAMPLE:443/"],
        ["https://a.example", "https://a.example./other/path"],
        ["https://a.example:80", "http://a.example"],
        ["http://localhost:9", "http://127.0.0.1:9"],
        ["http://[::1]:9", "http://localhost:9/"],
        ["https://[2001:db8::1]", "https://[2001:db8:0::1]"],
        ["https://127.0.0.1:9", "https://127.0.0.2:9"],
        ["https://b\xfccher.example", "https://xn--bcher-kva.example"],
    ],
)
def test_one_server_under_two_names_is_refused(urls: list[str]) -> None:
    for order in (urls, urls[::-1]):
        with pytest.raises(ValueError, match="name one server"):
            AsyncClient(order, insecure=True)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://a.example", "use https://"),
        ("http://192.0.2.1", "use https://"),
        ("http://127.0.0.1.a.example", "use https://"),
        ("ftp://a.example", "not with ftp://"),
        ("127.0.0.1:8000", "not with a host"),
        ("localhost:8000", "not with a host"),
        ("a.example", "not with a host"),
        ("https://", "names a host"),
        ("https://me:secret@a.example", "no user name"),
        ("https://a.example?x=1", "no query"),
        ("https://a.example#x", "no query"),
        ("https://a.example:99999", "malformed"),
        ("https://[::1", "malformed"),
    ],
)
def test_a_url_to_which_keys_must_not_go_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        AsyncClient([url, "https://b.example"])
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("urls", [[], ["https://a.example"], ["https://a.example"] * 3])
def test_there_are_two_servers(urls: list[str]) -> None:
    with pytest.raises(ValueError, match=f"of 2 servers, not of {len(urls)}"):
        AsyncClient(urls)


@pytest.mark.parametrize(
    ("urls", "kind"), [("https://one.example", "one str"), (None, "NoneType"), (2, "int")]
)
def test_what_are_no_urls(urls: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=f"^urls must be a sequence of two URLs, not {kind}$"):
        AsyncClient(urls)


def test_plain_http_to_others_must_be_asked_for() -> None:
    assert AsyncClient(["http://a.example", "http://b.example"], insecure=True)


@pytest.mark.parametrize(
    ("host", "ascii_host"),
    [
        ("stra\xdfe.example", "xn--strae-oqa.example"),  # IDNA 2003 makes strasse.example of it
        ("\u03c3\u03c2.example", "xn--3xab.example"),  # a final sigma
        ("B\xdcCHER.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("b\xfccher\u3002example", "xn--bcher-kva.example"),
        ("\uff45\uff58\uff41\uff4d\uff50\uff4c\uff45.example", "example.example"),
        ("ex\xadample.example", "example.example"),
        ("xn--strae-oqa.example", "xn--strae-oqa.example"),
        ("my_server.internal", "my_server.internal"),
    ],
)
def test_an_international_host_is_the_one_that_browsers_go_to(host: str, ascii_host: str) -> None:
    assert ServerAddress.parse(f"https://{host}").host == ascii_host


@pytest.mark.parametrize(
    "host",
    [
        "\u2603.example",  # IDNA 2008 has no symbols
        "a\u200db.example",  # a joiner that joins nothing
        "\u0627b.example",  # two directions
        "\u0661.example",  # a number of another direction
        "a\uff0fb.example",
        "a\uff20b.example",
        "a\uff05b.example",
        "a\uff1ab.example",
        "\u2100.example",
        "%61.example",
        "a%2eexample",
        "a..example",
        ".example",
        "-a.example",
        "a-.example",
        "a*.example",
        "a" * 64 + ".example",
        ".".join(["a" * 60] * 5),
        "\xfc" * 250 + ".example",
        "\uff11\uff12\uff17.1",
        "127.0.0.01",
        "0.0.0.0",
        "[::]",
        "224.0.0.1",
        "[ff02::1]",
        "[fe80::1%eth0]",
        "[fe80::1%25eth0]",
        "[v1.x]",
        "[a.example]",
        "[127.0.0.1]",
        "b[::1]",
        "[::1]b",
    ],
)
def test_a_host_that_is_not_clearly_one_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"^a server's URL "):
        AsyncClient([f"https://{host}", "https://b.example"])


@pytest.mark.parametrize(
    "url",
    [
        "https://a.exa\nmple",
        "https://a.example\t",
        "https://a.example/\x7f",
        "https://a.example/a b",
        "https://a.example\\@b.example",
        "https://a.example\\.b.example",
        "https://a.example/\udc80",
        "https://a.example:0",
        "https://a.example:-1",
        "https://a.example:\uff18\uff10",
        "https://a.example:8_0",
        "https://@a.example",
        "https://a.example?",
        "https://a.example#",
        "https:a.example",
        "https:///a.example",
    ],
)
def test_a_url_that_programs_read_differently_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="a server's URL"):
        AsyncClient([url.replace("\t", "\t/"), "https://b.example"])


@pytest.mark.parametrize(
    "url",
    [
        "https://me:pa55@a.example",
        "https://me:pa55",
        "https://me:pa55/@a.example",
        "https://me:pa55\u2100@a.example",
        "https://[me:pa55@a.example",
        "https://pa55@a.example:99999",
        "pa55@a.example",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="a server's URL") as refused:
        AsyncClient([url, "https://b.example"])
    assert "pa55" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_url_may_be_as_long_as_every_server_takes_it() -> None:
    fits = "https://a.example/".ljust(MAX_URL, "x")
    assert ServerAddress.parse(fits).url == fits
    with pytest.raises(ValueError, match=f"may have {MAX_URL} characters at most, not 65536"):
        AsyncClient([fits.ljust(1 << 16, "x"), "https://b.example"])


@pytest.mark.parametrize(
    ("given", "path"),
    [("/a%2fb", "/a%2fb"), ("/\xfc", "/%C3%BC"), ("/a;b=c,d", "/a;b=c,d"), ("//", ""), ("/", "")],
)
def test_a_path_is_ascii(given: str, path: str) -> None:
    assert ServerAddress.parse(f"https://a.example{given}").path == path
