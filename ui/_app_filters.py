"""The sidebar: which part of the library to look at, made of what the library holds."""

import datetime
from collections.abc import Sequence

import streamlit as st

from ui import _app_address as address
from ui.client import Facet, Facets

_FIRST_DAY = datetime.date(1826, 1, 1)  # of the oldest photograph there is
_LAST_DAY = datetime.date(2199, 12, 31)


def show_filters(facets: Facets) -> None:
    """Draw every filter."""
    search = address.current_search()
    with st.sidebar:
        st.markdown("#### Look only at")
        _choice("Folder", "folder", "All folders", facets.folders)
        if facets.earliest and facets.latest:
            known = f"Dated photos here were taken from {facets.earliest:%d %b %Y} to {facets.latest:%d %b %Y}."
            _day("Taken from", "after", known)
            _day("Taken until", "before", known)
        if facets.cameras:
            _choice("Camera", "camera", "All cameras", facets.cameras)
        if len(facets.formats) > 1:
            _formats(facets.formats)
        st.markdown("#### Leave out")
        _excluded()
        _least_match(bool(search.text))
        if search.filtered or search.without or search.min_match:
            _show_clear()


def _choice(label: str, name: str, everything: str, facets: Sequence[Facet]) -> None:
    counts = {facet.value: facet.count for facet in facets}
    chosen = address.show(name)
    if chosen is not None:
        counts.setdefault(chosen, 0)  # a bookmark of what is no longer there still says what it asks for
    st.selectbox(
        label,
        list(counts),
        index=None,
        key=name,
        placeholder=everything,
        format_func=lambda value: f"{_short(value, counts)}  ({counts[value]:,})",
        on_change=address.write,
        args=(name,),
    )


def _short(value: str, counts: dict[str, int]) -> str:
    # Folders are told apart by their last name, or by the whole path where two share that.
    last = _last_name(value)
    return last if sum(_last_name(other) == last for other in counts) == 1 else value


def _last_name(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or path


def _day(label: str, name: str, known: str) -> None:
    address.show(name)
    st.date_input(
        label,
        None,
        min_value=_FIRST_DAY,
        max_value=_LAST_DAY,
        key=name,
        help=known,
        format="YYYY-MM-DD",
        on_change=address.write,
        args=(name,),
    )


def _formats(facets: Sequence[Facet]) -> None:
    known = [facet.value for facet in facets]
    unknown = [value for value in address.show("format") if value not in known]
    st.pills("Format", known + unknown, selection_mode="multi", key="format", on_change=address.write, args=("format",))


def _excluded() -> None:
    st.multiselect(
        "What photos must not show",
        address.show("without"),
        key="without",
        placeholder="people, text, …",
        accept_new_options=True,
        max_selections=8,
        on_change=address.write,
        args=("without",),
    )


def _least_match(has_words: bool) -> None:
    address.show("min")
    st.slider(
        "Matches below",
        0,
        95,
        step=5,
        key="min",
        format="%d %%",
        disabled=not has_words,
        help="How probable it must be that a photo and your words belong together.",
        on_change=address.write,
        args=("min",),
    )


def _show_clear() -> None:
    st.button(
        "Clear all", icon=":material/filter_alt_off:", on_click=address.clear, args=address.FILTERS, width="stretch"
    )
