import datetime
import math
from typing import Any

import pytest

from indexer.errors import QueryInvalid
from indexer.library import Filters, Near
from search.query import DEPTH, MAX_TEXT, MAX_WITHOUT, SearchQuery
from tests.search.conftest import picture


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Say what to look for"),
        ({"text": " \n"}, "empty"),
        ({"text": "x" * (MAX_TEXT + 1)}, str(MAX_TEXT)),
        ({"text": "a cat", "without": ("",)}, "leave out is empty"),
        ({"text": "a cat", "without": ("dog",) * (MAX_WITHOUT + 1)}, f"at most {MAX_WITHOUT}"),
        ({"text": "a cat", "top": 0}, "from 1 to"),
        ({"text": "a cat", "top": DEPTH + 1}, f"to {DEPTH}"),
        ({"text": "a cat", "offset": -1}, "offset is -1"),
        ({"text": "a cat", "rerank": -1}, "rerank is -1"),
        ({"text": "a cat", "min_match": 1.5}, "minimum match is 1.5"),
        ({"text": "a cat", "min_match": math.nan}, "minimum match is nan"),
        ({"text": "a cat", "min_match": 0.5, "rerank": 0}, "needs reranking"),
        ({"like_photo": 1, "min_match": 0.5}, "needs a search text"),
        ({"like_photo": 1, "like": picture("coffee.png")}, "not both"),
        (
            {"text": "a cat", "filters": Filters(after=datetime.date(2020, 1, 2), before=datetime.date(2020, 1, 1))},
            "Swap the two dates",
        ),
        ({"text": "a cat", "filters": Filters(near=Near(91, 0, 1))}, "latitude is 91"),
        ({"text": "a cat", "filters": Filters(near=Near(0, 181, 1))}, "longitude is 181"),
        ({"text": "a cat", "filters": Filters(near=Near(0, 0, 0))}, "distance is 0"),
        ({"text": "a cat", "filters": Filters(near=Near(0, 0, math.inf))}, "distance is inf"),
    ],
)
def test_impossible_queries_say_why(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryInvalid, match=message):
        SearchQuery(**fields)


def test_the_edges_are_allowed() -> None:
    query = SearchQuery(text="x" * MAX_TEXT, top=DEPTH, offset=DEPTH, rerank=DEPTH, min_match=1)
    assert query.top == DEPTH
    day = datetime.date(2020, 1, 1)
    assert SearchQuery(like_photo=1, filters=Filters(after=day, before=day, near=Near(-90, 180, 0.1)))
