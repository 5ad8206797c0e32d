"""How the app looks beyond its theme (.streamlit/config.toml): one style sheet and a few marks of our own."""

import html
from pathlib import Path

import streamlit as st

from ui.client import Result
from ui.wording import LIKELY_MATCH, POSSIBLE_MATCH, STRONG_MATCH, match_words, percent

LOGO = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" width="32" height="32">
<rect x="1" y="1" width="30" height="30" rx="9" fill="#B3441B"/>
<circle cx="14" cy="14" r="7" fill="none" stroke="#FFF6EC" stroke-width="2.6"/>
<path d="M19.4 19.4 25 25" stroke="#FFF6EC" stroke-width="3" stroke-linecap="round"/>
<path d="M10.4 15.4l2.4-3 2 2.2 1.2-1.3 1.8 2.1" fill="none" stroke="#FFD7A8" stroke-width="1.5"/>
</svg>"""

_SHEET = Path(__file__).with_name("app.css")


def apply_style() -> None:
    """Add the style sheet to the page."""
    st.html(_SHEET)


def badge(result: Result) -> str:
    """HTML of a result's match in words and percent; of its similarity where the matching head did not look."""
    if result.match is None:
        return f'<span class="ps-badge ps-none">Similarity {result.similarity:.2f}</span>'
    words = match_words(result.match).capitalize()
    return f'<span class="ps-badge ps-{_level(result.match)}">{words} · {percent(result.match)}</span>'


def aspect(result: Result) -> float:
    """Width / height of a result's frame; the photo lies whole within it, however long or tall it is."""
    photo = result.photo
    return min(max(photo.width / max(photo.height, 1), 0.6), 2.6)


def quoted(text: str) -> str:
    """Text of a file or a person, safe within HTML."""
    return html.escape(text)


def plain(text: str) -> str:
    """Text of a file or a person, safe within Markdown: every mark that Markdown or Streamlit reads is escaped."""
    return "".join(f"\\{mark}" if mark in r"\`*_{}[]()<>#+-.!|~:$" else mark for mark in text)


def _level(match: float) -> str:
    if match >= STRONG_MATCH:
        return "strong"
    if match >= LIKELY_MATCH:
        return "likely"
    return "possible" if match >= POSSIBLE_MATCH else "weak"
