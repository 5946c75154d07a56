"""Who may ask over plain HTTP, by the headers of a request."""

from websockets.datastructures import Headers

from streaming.support.http import origin_may


def test_a_page_under_a_name_that_points_here_may_not_listen():
    def may(origin: str, host: str) -> bool:
        return origin_may(Headers([("Origin", origin), ("Host", host)]), (), ("radio.example",))

    assert may("http://10.1.2.3:8765", "10.1.2.3:8765")
    assert may("https://radio.example", "radio.example")
    assert not may("http://evil.example:8765", "evil.example:8765")
    assert not origin_may(Headers([("Origin", "http://a"), ("Origin", "http://a")]), ())
