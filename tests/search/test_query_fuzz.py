"""Whatever is asked for, it is a query or an error that says why."""

import contextlib
import json
import math
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from indexer.errors import QueryInvalid
from indexer.library import Filters, Near
from search.document import printable
from search.query import DEPTH, MAX_TEXT, MAX_WITHOUT, SearchQuery
from search.service._schemas import MAX_RERANK, MAX_TOP, SearchRequest
from ui._cli_types import parse_date, parse_near

FUZZ = settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)

texts = st.text(st.characters(), max_size=30) | st.sampled_from(["", " ", "\0", "\ud800", "/", "/a\0b", "x" * 1001])
numbers = st.one_of(
    st.sampled_from(["nan", "inf", "-inf", "1e999", "1_0", "٣", "", " 1 ", "-0", "0x10", "90", "-180", "1e-320"]),
    st.floats().map(str),
)
places = st.lists(numbers, max_size=5).map(",".join)
values = st.one_of(texts, places, st.none(), st.booleans(), st.integers(), st.floats(), st.lists(texts, max_size=10))
fields = st.dictionaries(st.sampled_from([*SearchRequest.model_json_schema()["properties"], "other"]), values)


def check(query: SearchQuery) -> None:
    assert query.text is not None or query.like_photo is not None
    for text in (query.text, *query.without):
        assert text is None or (text.strip() and len(text) <= MAX_TEXT)
    assert len(query.without) <= MAX_WITHOUT
    assert 1 <= query.top <= MAX_TOP
    assert 0 <= query.offset <= DEPTH
    assert 0 <= query.rerank <= MAX_RERANK
    assert query.min_match is None or (0 <= query.min_match <= 1 and query.text is not None)
    if query.filters.near is not None:
        check_place(query.filters.near)
    if query.filters.folder is not None:
        assert query.filters.folder.is_absolute()
        assert "\0" not in str(query.filters.folder)


def check_place(near: Near) -> None:
    assert abs(near.latitude) <= 90
    assert abs(near.longitude) <= 180
    assert 0 < near.km < math.inf


@FUZZ
@given(fields)
def test_fields(fields: dict[str, Any]) -> None:
    try:
        query = SearchRequest.model_validate(fields).query()
    except ValidationError:
        return
    except QueryInvalid as error:
        printable(str(error)).encode()  # it can be sent
    else:
        check(query)


@FUZZ
@given(st.binary(max_size=200) | fields.map(json.dumps).map(str.encode))
def test_bodies(body: bytes) -> None:
    try:
        query = SearchRequest.model_validate_json(body).query()
    except (ValidationError, QueryInvalid):
        return
    check(query)


@FUZZ
@given(places | texts)
def test_places_of_the_command_line(text: str) -> None:
    try:
        query = SearchQuery(text="a cat", filters=Filters(near=parse_near(text)))
    except (typer.BadParameter, QueryInvalid):
        return
    assert query.filters.near is not None
    check_place(query.filters.near)


@FUZZ
@given(st.dates())
def test_dates_of_the_command_line(date: Any) -> None:
    assert parse_date(date.isoformat()) == date


@FUZZ
@given(texts)
def test_other_dates_of_the_command_line(text: str) -> None:
    with contextlib.suppress(typer.BadParameter):
        parse_date(text)


@FUZZ
@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(0, exclude_min=True, allow_infinity=False))
def test_a_place_is_what_was_written(latitude: float, longitude: float, km: float) -> None:
    place = parse_near(f"{latitude},{longitude},{km}")
    assert place == Near(latitude, longitude, km)
    asked = SearchRequest.model_validate({"q": "a cat", "near": f"{latitude},{longitude},{km}"})
    assert asked.query().filters.near == place


def test_the_fuzz_reaches_queries() -> None:
    """The strategies above make some that are valid."""
    with pytest.raises(AssertionError, match="found one"):
        _expect_none()


@settings(FUZZ, max_examples=1000)
@given(fields)
def _expect_none(fields: dict[str, Any]) -> None:
    try:
        SearchRequest.model_validate(fields).query()
    except (ValidationError, QueryInvalid):
        return
    raise AssertionError("found one")
