"""The search page: a box, and the photos that fit."""

import dataclasses
from collections.abc import Sequence

import streamlit as st

from indexer.errors import ServiceError
from ui import _app_address as address
from ui._app_filters import show_filters
from ui._app_grid import show_grid
from ui._app_photo import show_photo
from ui._app_service import client, facets, pictures, results, small_picture
from ui._app_states import (
    show_empty_library,
    show_error,
    show_examples,
    show_no_good_match,
    show_nothing_found,
    show_warming_up,
)
from ui._app_style import plain
from ui.client import Result, Results, Search
from ui.wording import POSSIBLE_MATCH, count

_UPLOADS = ("jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp", "heic", "heif", "avif")


def search_page() -> None:
    """Draw the box at once, then whatever the service says."""
    search = address.current_search()
    if not search.asks:
        st.html('<h1 class="ps-hero">Type what you remember. <em>Get the photo.</em></h1>')
    _show_box()
    below = st.container()
    try:
        if facets().folders:
            show_filters(facets())
        with below:
            if search.asks:
                _show_answer(search)
            else:
                _show_welcome()
    except ServiceError as error:
        with below:
            show_error(error)


def _show_box() -> None:
    address.show("q")
    with st.container(key="box", horizontal=True, vertical_alignment="center", gap="xsmall"):
        st.text_input(
            "Describe the photo",
            key="q",
            type="search",
            placeholder="Describe the photo: two dogs running on a beach",
            max_chars=1000,
            label_visibility="collapsed",
            on_change=address.write,
            args=("q",),
        )
        with st.popover("Photo", icon=":material/image_search:", help="Search with a photo"):
            st.file_uploader(
                "Find photos that look like this one",
                type=_UPLOADS,
                key=address.upload_key(),
                on_change=address.clear,
                args=("like",),
            )


def _show_welcome() -> None:
    photos = client().status().photos
    if not photos:
        show_empty_library()
        return
    st.html(f'<p class="ps-ready">{count(photos, "photo")} ready to search. Nothing leaves this machine.</p>')
    show_examples()
    show_warming_up()
    _show_opened(())


def _show_answer(search: Search) -> None:
    _show_likeness(search)
    pages = st.session_state["pages"] if st.session_state.get("paged") == search else 1
    with st.spinner("Looking…"):
        answers = [results(dataclasses.replace(search, offset=page * search.top)) for page in range(pages)]
    found = [result for answer in answers for result in answer.results]
    if not found:
        show_nothing_found(search, answers[0])
    else:
        _show_found(search, answers[0], found)
        if len(found) < answers[0].total:
            st.button(
                "Show more", key="more", icon=":material/expand_more:", on_click=_turn_to, args=(search, pages + 1)
            )
    _show_opened(found)


def _show_found(search: Search, answer: Results, found: Sequence[Result]) -> None:
    best = found[0].match
    if best is not None and best < POSSIBLE_MATCH:
        show_no_good_match()
    seconds = answer.took_ms["total"] / 1000
    shown = f"Best {len(found):,} of {count(answer.considered, 'picture')}"
    part = " that pass the filters" if search.filtered else ""
    st.html(f'<p class="ps-summary" role="status">{shown}{part} <span>{seconds:.2f} s</span></p>')
    show_grid(found)


def _turn_to(search: Search, pages: int) -> None:
    st.session_state["paged"], st.session_state["pages"] = search, pages


def _show_likeness(search: Search) -> None:
    """The photo that results should resemble, and a way to let go of it."""
    if search.like_image:
        name, picture = "your photo", small_picture(search.like_image)
    elif search.like_photo is not None:
        photo = client().photo(search.like_photo)
        name, picture = photo.name, pictures().thumbnail(photo)
    else:
        return
    with st.container(key="like", horizontal=True, vertical_alignment="center", gap="small"):
        if picture:
            st.image(picture, width=56, alt=name)
        st.markdown(f"Photos like **{plain(name)}**" + (", and your words" if search.text else ""), width="content")
        st.button("Let go of it", icon=":material/close:", type="tertiary", on_click=_let_go)


def _let_go() -> None:
    address.clear("like")
    address.drop_upload()


def _show_opened(found: Sequence[Result]) -> None:
    opened = address.opened_photo()
    if opened is not None:
        show_photo(opened, found)
