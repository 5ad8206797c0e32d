"""The search as it stands in the page's address, which is the truth about it: so it can be bookmarked and reloaded.

A widget of the name of a parameter shows what the address says (``show``), and writes into it what is chosen
(``write``). Streamlit's own binding of widgets is of no use here: it leaves no step to go back to, and writes choices
as they are displayed, with their counts.
"""

import datetime
from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from ui.client import Search

FILTERS = ("without", "folder", "after", "before", "camera", "format", "min")


def current_search() -> Search:
    """What is asked for."""
    upload = st.session_state.get(upload_key())
    return Search(
        text=_value("q").strip(),
        without=tuple(_value("without")),
        like_photo=None if upload else _number("like"),
        like_image=upload.getvalue() if upload else None,
        folder=_value("folder"),
        after=_value("after"),
        before=_value("before"),
        camera=_value("camera"),
        formats=tuple(_value("format")),
        min_match=_value("min") / 100 or None,
    )


def show(name: str) -> Any:
    """Make the widget of that name show what the address says; returns it. To be called before the widget is drawn."""
    value = _value(name)
    # Setting it again would wipe out what is being typed.
    if name not in st.session_state or st.session_state[name] != value:
        st.session_state[name] = value
    return value


def write(name: str) -> None:
    """Write what the widget of that name holds into the address: for its ``on_change``."""
    value = st.session_state[name]
    if value:
        st.query_params[name] = [str(one) for one in value] if isinstance(value, list) else str(value)
    else:
        clear(name)


def clear(*names: str) -> None:
    """Take these out of the address."""
    for name in names:
        st.query_params.pop(name, None)


def ask(text: str) -> None:
    """Search for words."""
    st.query_params["q"] = text


def ask_like(photo_id: int) -> None:
    """Search for photos like an indexed one."""
    drop_upload()
    clear("q", "photo")
    st.query_params["like"] = str(photo_id)


def opened_photo() -> int | None:
    """Id of the photo whose details are open."""
    return _number("photo")


def open_photo(photo_id: int) -> None:
    """Show the details of a photo."""
    st.query_params["photo"] = str(photo_id)


def upload_key() -> str:
    """Key of the upload widget. Another one after an upload is dropped: Streamlit empties that widget no other way."""
    return f"upload{st.session_state.get('uploads', 0)}"


def drop_upload() -> None:
    """Stop comparing with the uploaded photo."""
    st.session_state["uploads"] = st.session_state.get("uploads", 0) + 1


def _value(name: str) -> Any:
    return _READERS[name](st.query_params.get_all(name))


def _number(name: str) -> int | None:
    text = st.query_params.get(name, "")
    return int(text) if text.isdecimal() else None


def _one(values: list[str]) -> str | None:
    return values[-1] if values else None


def _day(values: list[str]) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(values[-1]) if values else None
    except ValueError:
        return None


def _percent(values: list[str]) -> int:
    return min(int(values[-1]), 95) if values and values[-1].isdecimal() else 0


def _words(values: list[str]) -> list[str]:
    return [value.strip() for value in values if value.strip()]


_READERS: Mapping[str, Callable[[list[str]], Any]] = {
    "q": lambda values: _one(values) or "",
    "without": _words,
    "folder": _one,
    "after": _day,
    "before": _day,
    "camera": _one,
    "format": _words,
    "min": _percent,
}
