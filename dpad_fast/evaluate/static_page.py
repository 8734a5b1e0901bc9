"""A page of HTML that runs nothing: its own policy forbids scripts and anything from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; --edge: #8884; --soft: #8881; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; margin-top: 1.2rem; }
table { border-collapse: collapse; font-size: .92rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--edge); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.note { font-size: .9rem; opacity: .8; margin: .3rem 0; }
figure { margin: 0; background: var(--soft); border-radius: 6px; padding: .6rem; }
figure img { display: block; width: 100%; max-width: 14rem; image-rendering: pixelated; }
figcaption { font-size: .85rem; margin: .4rem 0; }
pre { font-size: .78rem; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
"""


def page(title: str, parts: Sequence[str], style: str = "") -> str:
    """A whole page that loads nothing and runs nothing.

    Args:
        title: text; it is escaped.
        parts: HTML, in which whatever others wrote is escaped already.
        style: rules behind the common ones.

    Returns:
        HTML text.
    """
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:; "
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head><body><h1>{escape(title)}</h1>"
        + "".join(parts)
        + "</body></html>\n"
    )
