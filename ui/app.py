"""The Streamlit app. Start it with ``photoseek ui``; it reaches the search service over HTTP only."""

import logging

import streamlit as st

from ui._app_library import library_page
from ui._app_search import search_page
from ui._app_style import LOGO, apply_style


def main() -> None:
    """Draw the page that the address names."""
    st.set_page_config(page_title="PhotoSeek", page_icon=LOGO, layout="wide", menu_items={"About": _ABOUT})
    st.logo(LOGO, size="large")
    apply_style()
    search = st.Page(search_page, title="Search", icon=":material/search:", default=True)
    library = st.Page(library_page, title="Library", icon=":material/photo_library:", url_path="library")
    st.session_state["library_page"] = library
    page = st.navigation([search, library], position="top")
    try:
        page.run()
    except Exception:
        _LOG.exception("The page could not be drawn")
        st.error("Something went wrong on this page; the app's terminal says what. Reload the page to try again.")


_LOG = logging.getLogger(__name__)
_ABOUT = "**PhotoSeek**: type what you remember; get the photo. Nothing leaves your machine."

main()
