"""Hints of a given number of characters, of the kinds that clients send."""

from collections.abc import Callable


def terms(length: int) -> str:
    """Words that occur in the recordings."""
    words = (
        "John Dashwood, prudently, ill disposed, cold hearted, selfish, fellow Americans, "
        "formal review of activities, ten of clubs, eight of spades, seven of hearts, yellow pad, "
    )
    return (words * 40)[:length]


def devices(length: int) -> str:
    """A smart home, as Home Assistant names it to Wyoming services."""
    names = (f"Living Room Lamp {n}, Kitchen Ceiling Light {n}, " for n in range(1, 100))
    return "".join(names)[:length]


def repeated(length: int) -> str:
    return ("Ada Lovelace, " * 400)[:length]


def punctuation(length: int) -> str:
    return (".,;:!? ... -- " * 400)[:length]


KINDS: dict[str, Callable[[int], str]] = {
    "terms that occur": terms,
    "device names": devices,
    "one name repeated": repeated,
    "punctuation": punctuation,
}
