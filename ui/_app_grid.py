"""Results as rows of photos, each whole and unstretched, all of a row equally high."""

from collections.abc import Sequence

import streamlit as st

from ui import _app_address as address
from ui._app_service import pictures
from ui._app_style import aspect, badge, quoted
from ui.client import Result


def show_grid(results: Sequence[Result]) -> None:
    """Draw the photos; a click opens one."""
    thumbnails = pictures().thumbnails([result.photo for result in results])
    # A row's photos share its width in proportion to their aspect, which makes them equally high.
    rules = "".join(
        f".st-key-grid>:has(>.st-key-card-{result.photo.id}){{--aspect:{aspect(result):.3f}}}" for result in results
    )
    st.html(f"<style>{rules}</style>")
    with st.container(key="grid", horizontal=True):
        for result, thumbnail in zip(results, thumbnails, strict=True):
            _show_card(result, thumbnail)


def _show_card(result: Result, thumbnail: bytes | None) -> None:
    photo = result.photo
    with st.container(key=f"card-{photo.id}", gap=None):
        if thumbnail is None:
            st.html('<div class="ps-no-picture">No preview</div>')
        else:
            st.image(thumbnail, alt=photo.name, width="stretch")
        st.html(f'{badge(result)}<div class="ps-name" title="{quoted(photo.path)}">{quoted(photo.name)}</div>')
        # Lies over the whole card, so that it is one target for the mouse and one stop for the keyboard.
        st.button(f"Open {photo.name}", key=f"open-{photo.id}", on_click=address.open_photo, args=(photo.id,))
