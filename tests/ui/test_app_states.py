"""States of the page that the real service can hardly be brought into, drawn by Streamlit without a browser."""

import sys

import pytest
from streamlit.testing.v1 import AppTest


def test_a_service_that_is_too_slow_is_not_called_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def page() -> None:
        from ui._app_states import show_error  # noqa: PLC0415
        from ui.client import ServiceTooSlow  # noqa: PLC0415

        show_error(ServiceTooSlow("The service took too long to answer."))

    # Streamlit leaves its own module in this place, and processes that later tests start would run it.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    drawn = AppTest.from_function(page).run(timeout=60)

    assert not drawn.exception
    said = " ".join(block.value for block in drawn.markdown)
    assert "The search service takes too long" in said
    assert "not running" not in said
    assert [button.label for button in drawn.button] == ["Try again"]
