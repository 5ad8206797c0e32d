"""What the page says when there are no photos to show, and what to do about it."""

import streamlit as st

from indexer.errors import ServiceError
from ui import _app_address as address
from ui._app_service import client
from ui._app_style import plain
from ui.client import Results, Search, ServiceTooSlow, ServiceUnreachable, ServiceWarmingUp
from ui.wording import percent

_EXAMPLES = ("two dogs running on a beach", "a birthday cake with candles", "a red car in the snow", "a cup of coffee")
_START = "./scripts/start\nphotoseek ui --library DIR"


def show_error(error: ServiceError) -> None:
    """The state that an error of the service stands for."""
    if isinstance(error, ServiceWarmingUp):
        _wait_until_ready()
    elif isinstance(error, ServiceUnreachable):
        _service_down(error)
    elif isinstance(error, ServiceTooSlow):
        _service_busy(error)
    else:
        with _panel("error", ":material/error:", "That did not work"):
            message = str(error)
            st.markdown(plain(message[:1].upper() + message[1:]))


def show_empty_library() -> None:
    """Nothing is indexed yet."""
    with _panel("empty", ":material/add_photo_alternate:", "Your library is empty"):
        st.markdown("Choose a folder of photos. PhotoSeek looks at each once; your originals stay as they are.")
        if st.button("Add a folder", type="primary", icon=":material/create_new_folder:"):
            st.switch_page(st.session_state["library_page"])


def show_examples() -> None:
    """Searches to begin with."""
    with st.container(key="examples", horizontal=True, horizontal_alignment="center", gap="xsmall"):
        for example in _EXAMPLES:
            st.button(example, key=f"example {example}", on_click=address.ask, args=(example,))


def show_nothing_found(search: Search, results: Results) -> None:
    """No result at all: say which of the wishes leaves nothing, and take it back at a click."""
    if not results.considered and search.filtered:
        with _panel("filtered", ":material/filter_alt_off:", "No photo passes the filters"):
            st.markdown("Widen the dates, or choose another folder, camera or format.")
            st.button("Clear the filters", type="primary", on_click=address.clear, args=address.FILTERS)
    elif not results.considered:
        show_empty_library()
    elif search.min_match:
        with _panel("none", ":material/search_off:", f"Nothing matches at {percent(search.min_match)} or more"):
            st.markdown("Lower the minimum match, or describe the photo in other words.")
            st.button("Show weaker matches", type="primary", on_click=address.clear, args=("min",))
    elif search.without:
        with _panel("none", ":material/search_off:", "Nothing is left"):
            st.markdown("Every photo that fits also shows what you left out.")
            st.button("Leave nothing out", type="primary", on_click=address.clear, args=("without",))
    elif search.filtered:
        with _panel("none", ":material/search_off:", "Nothing found"):
            st.markdown("No other photo passes the filters.")
            st.button("Clear the filters", type="primary", on_click=address.clear, args=address.FILTERS)
    else:
        with _panel("none", ":material/search_off:", "Nothing found"):
            st.markdown("No other photo is in the library to compare with.")


def show_no_good_match() -> None:
    """Results, but the best of them is weak."""
    with st.container(key="weak"):
        st.markdown(
            "**No photo fits these words well.** These come closest. Try fewer or plainer words: what the photo "
            "shows, rather than when or why it was taken."
        )


def show_warming_up() -> None:
    """That the model is still loading, if it is."""
    if not client().ready():
        _wait_until_ready()


def _service_down(error: ServiceError) -> None:
    with _panel("down", ":material/cloud_off:", "The search service is not running"):
        st.markdown(f"{plain(str(error))} Start PhotoSeek again in a terminal, by the command that started it:")
        st.code(_START, language=None)
        st.button("Try again", type="primary", icon=":material/refresh:")


def _service_busy(error: ServiceError) -> None:
    with _panel("busy", ":material/hourglass_disabled:", "The search service takes too long"):
        st.markdown(
            f"{plain(str(error))} It may be busy with an index or with other searches; if it never answers, start "
            "PhotoSeek again."
        )
        st.button("Try again", type="primary", icon=":material/refresh:")


@st.fragment(run_every=1)
def _wait_until_ready() -> None:
    with _panel("warming", ":material/hourglass_top:", "Warming up"):
        st.markdown("The model is being loaded, which takes a few seconds. Type away: results appear by themselves.")
    try:
        ready = client().ready()
    except ServiceError:
        ready = True  # the page says what is wrong
    if ready:
        st.rerun()


def _panel(name: str, icon: str, title: str) -> "st.delta_generator.DeltaGenerator":
    panel = st.container(key=f"state-{name}", horizontal_alignment="center")
    panel.markdown(f"## {icon}\n### {title}", text_alignment="center")
    return panel
