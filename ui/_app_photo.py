"""The details of one photo: large, with what is known about it and why it was found."""

from collections.abc import Sequence

import streamlit as st

from indexer.errors import PhotoUnreadable, ServiceError
from ui import _app_address as address
from ui._app_service import client, pictures
from ui._app_style import badge, plain, quoted
from ui.client import NotFound, Photo, Result
from ui.wording import file_size, match_words, percent

_GONE = (
    "**The photo's file is not there any more**; this is the small copy that the library keeps. If it is on a drive, "
    "connect that. If it was moved, index the folder it is in now: it will be recognised."
)


def show_photo(photo_id: int, results: Sequence[Result]) -> None:
    """Open the details over the page. ``results`` are those that one can leaf through."""
    found = {result.photo.id: result for result in results}
    result = found.get(photo_id)
    try:
        photo = result.photo if result else client().photo(photo_id)
    except ServiceError as error:
        address.clear("photo")
        st.toast(plain(str(error)), icon=":material/error:")
        return
    dialog = st.dialog(plain(photo.name), width="large", on_dismiss=_close)
    dialog(_show_details)(photo, result, list(found))


def _close() -> None:
    address.clear("photo")


def _show_details(photo: Photo, result: Result | None, ids: Sequence[int]) -> None:
    picture, facts = st.columns([5, 3], gap="medium")
    with picture, st.container(key="photo"):
        _show_picture(photo)
        _show_neighbours(photo.id, ids)
    with facts:
        if result:
            _show_scores(result)
        _show_facts(photo)
        if st.button(
            "More like this",
            type="primary",
            icon=":material/image_search:",
            width="stretch",
            on_click=address.ask_like,
            args=(photo.id,),
        ):
            st.rerun()  # the whole page: a button of a dialog runs only that again


def _show_picture(photo: Photo) -> None:
    try:
        st.image(pictures().preview(photo), alt=photo.name, width="stretch")
    except (ServiceError, PhotoUnreadable) as error:
        thumbnail = pictures().thumbnail(photo)
        if thumbnail:
            st.image(thumbnail, alt=photo.name, width="stretch")
        if isinstance(error, NotFound):
            st.warning(_GONE, icon=":material/hide_image:")
        else:
            st.warning(f"The photo's file cannot be shown: {plain(str(error))}", icon=":material/hide_image:")


def _show_neighbours(photo_id: int, ids: Sequence[int]) -> None:
    if photo_id not in ids or len(ids) < 2:
        return
    place = ids.index(photo_id)
    with st.container(key="leaf", horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        _leaf("Previous", "chevron_left", ids[place - 1] if place else None, "Left")
        st.caption(f"{place + 1} of {len(ids)}", width="content")
        _leaf("Next", "chevron_right", ids[place + 1] if place + 1 < len(ids) else None, "Right")


def _leaf(label: str, icon: str, photo_id: int | None, shortcut: str) -> None:
    if st.button(
        label,
        icon=f":material/{icon}:",
        type="tertiary",
        disabled=photo_id is None,
        shortcut=shortcut,
        on_click=address.open_photo,
        args=(photo_id,),
    ):
        st.rerun()


def _show_scores(result: Result) -> None:
    st.html(badge(result))
    if result.match is not None:
        st.markdown(
            f"**Match {percent(result.match)}** — a {match_words(result.match)}. The model looked at this photo and "
            "your words together; this is how probable it finds that they belong together."
        )
    st.markdown(
        f"**Similarity {result.similarity:.2f}** — how near the photo lies to what you asked for, from −1 to 1. It is "
        "quick to compare, and picks the photos that get a closer look."
    )


def _show_facts(photo: Photo) -> None:
    facts = {
        "Taken": f"{photo.taken_at:%A, %d %B %Y, %H:%M}" if photo.taken_at else None,
        "Camera": photo.camera,
        "Place": _place(photo),
        "Picture": f"{photo.width:,} × {photo.height:,} pixels",
        "File": f"{photo.format}, {file_size(photo.size)}",
    }
    rows = "".join(f"<dt>{name}</dt><dd>{quoted(fact)}</dd>" for name, fact in facts.items() if fact)
    st.html(f'<dl class="ps-facts">{rows}</dl>')
    st.code(photo.path, language=None, wrap_lines=True)
    if photo.copies:
        st.caption("The same picture is also here:")
        for copy in photo.copies:
            st.code(copy, language=None, wrap_lines=True)


def _place(photo: Photo) -> str | None:
    if photo.latitude is None or photo.longitude is None:
        return None
    north, east = "N" if photo.latitude >= 0 else "S", "E" if photo.longitude >= 0 else "W"
    return f"{abs(photo.latitude):.5f}° {north}, {abs(photo.longitude):.5f}° {east}"
