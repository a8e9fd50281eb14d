"""Words and pictures for reports: names in any bytes, words for a shell, shares, inline SVG."""

import os
import re
import shlex


def readable(text: str) -> str:
    """A text that can be written: bytes of a name that are not UTF-8 become a replacement sign."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def quoted(text: str) -> str:
    """A word for a shell, whatever the bytes of a path in it are."""
    if readable(text) == text:
        return shlex.quote(text)
    shown = (
        chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in os.fsencode(text)
    )
    return f"$'{''.join(shown)}'"


def percent(share: float) -> str:
    """A share as a percentage with one digit, or two significant digits below one percent."""
    return f"{100 * share:.2g}%" if abs(share) < 0.01 else f"{100 * share:.1f}%"


def inline_svg(picture: bytes) -> str:
    """The <svg> element alone, without a fixed size, so that the page scales it."""
    text = picture.decode("utf-8")
    text = text[text.index("<svg") :]
    # The metadata names vocabularies by address, which a self-contained page has no use for.
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1).replace(
        "<svg", '<svg role="img" aria-label="The two cells as graphs"', 1
    )
