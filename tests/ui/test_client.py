"""The client against the real service."""

import datetime
import io
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from indexer.errors import ServiceError
from tests.browser.pictures import write_album
from tests.browser.servers import free_port, index, running_service
from ui.client import Client, NotFound, Search, ServiceTooSlow, ServiceUnreachable

TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("album")
    write_album(folder)
    return folder


@pytest.fixture(scope="module")
def client(album: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a service that holds the album and wants a token."""
    with running_service(tmp_path_factory.mktemp("library"), token=TOKEN) as url, Client(url, TOKEN) as client:
        job = index(client, album)
        assert job.state == "done", job
        yield client


def test_a_search_gives_photos_with_scores_best_first(client: Client) -> None:
    answer = client.search(Search(text="a cup of coffee", top=5))
    assert [result.rank for result in answer.results] == [1, 2, 3, 4, 5]
    assert answer.total == answer.considered == client.status().pictures
    for result in answer.results:
        assert -1 <= result.similarity <= 1
        assert result.match is not None
        assert 0 <= result.match <= 1
    assert set(answer.took_ms) >= {"encode", "candidates", "rerank", "total"}


def test_pages_follow_each_other(client: Client) -> None:
    both = client.search(Search(text="a cat", top=6)).results
    second = client.search(Search(text="a cat", top=3, offset=3)).results
    assert [result.photo.id for result in second] == [result.photo.id for result in both[3:]]


def test_every_filter_is_understood(client: Client, album: Path) -> None:
    day = datetime.date(2019, 7, 14)
    for search in (
        Search(text="a temple", camera="Canon EOS 5D"),
        Search(text="a temple", after=day, before=day),
        Search(text="a temple", folder=str(album / "trip"), formats=("JPEG",)),
    ):
        found = {result.photo.name for result in client.search(search).results}
        assert found == {"trip-china.jpg", "trip-rocket.jpg", "trip-moon.jpg"}
    assert client.search(Search(text="a temple", before=datetime.date(1999, 1, 1))).considered == 0
    assert client.search(Search(text="a temple", min_match=1.0)).results == ()


def test_excluded_words_are_understood(client: Client) -> None:
    assert client.search(Search(text="a cat", without=("a cat", "a dog"))).total <= client.status().pictures


def test_a_picture_finds_itself_and_photos_like_it(client: Client, album: Path) -> None:
    picture = (album / "samples" / "chelsea.png").read_bytes()
    result = client.search(Search(like_image=picture, top=1)).results[0]
    assert result.photo.name == "chelsea.png"
    assert result.match is None
    similar = client.search(Search(like_photo=result.photo.id)).results
    assert result.photo.id not in {other.photo.id for other in similar}
    with_words = client.search(Search(text="a cat", like_image=picture, top=1)).results[0]
    assert with_words.match is not None


def test_a_photo_has_its_facts_and_pictures(client: Client) -> None:
    found = client.search(Search(text="a temple", camera="Canon EOS 5D")).results
    photo = client.photo(next(result.photo.id for result in found if result.photo.name == "trip-china.jpg"))
    assert photo.taken_at == datetime.datetime(2019, 7, 14, 16, 20)
    assert photo.latitude == pytest.approx(48.8584, abs=1e-4)
    assert photo.longitude == pytest.approx(2.2945, abs=1e-4)
    with Image.open(io.BytesIO(client.thumbnail(photo.id))) as thumbnail:
        assert max(thumbnail.size) <= 512
    with Image.open(io.BytesIO(client.file(photo.id))) as original:
        assert original.size == (photo.width, photo.height)


def test_copies_of_a_picture_are_named(client: Client, album: Path) -> None:
    copies = {str(album / "samples" / "coffee.png"), str(album / "trip" / "coffee-again.png")}
    found = client.search(Search(text="a cup of coffee")).results
    result = next(result for result in found if result.photo.path in copies)
    assert {result.photo.path, *result.photo.copies} == copies
    assert set(client.photo(result.photo.id).copies) == copies - {result.photo.path}


def test_the_library_says_what_it_holds(client: Client, album: Path) -> None:
    facets = client.facets()
    assert {facet.value: facet.count for facet in facets.folders}[str(album / "trip")] == 4
    assert [(facet.value, facet.count) for facet in facets.cameras] == [("Canon EOS 5D", 3)]
    assert facets.latest == datetime.datetime(2019, 7, 14, 16, 20)
    assert facets.earliest is not None
    assert facets.earliest < facets.latest
    status = client.status()
    assert status.photos == sum(facet.count for facet in facets.formats)
    assert status.pictures == status.photos - 1
    assert status.failed == 1
    assert status.model == "compact"
    assert status.size > 0
    failures = client.failures()
    assert [failure.path for failure in failures] == [str(album / "broken.jpg")]
    assert failures[0].reason


def test_a_job_is_watched_and_cancelled(client: Client, album: Path) -> None:
    started = client.start_index(str(album))
    client.cancel(started.id)
    job = started
    while job.running:
        time.sleep(0.05)
        job = client.job(started.id)
    assert job.state in {"cancelled", "done"}  # there was nothing to do: it may have been quicker
    assert job.folders == (str(album),)
    assert client.jobs()[-1].id == started.id


def test_what_is_not_there_is_not_found(client: Client) -> None:
    for ask in (client.photo, client.thumbnail, client.file):
        with pytest.raises(NotFound, match="999999"):
            ask(999999)
    with pytest.raises(NotFound, match="no job"):
        client.job("none")


def test_refusals_carry_the_services_own_words(client: Client) -> None:
    with pytest.raises(ServiceError, match="There is no folder /nowhere"):
        client.start_index("/nowhere")
    with pytest.raises(ServiceError, match="Swap the two dates"):
        client.search(Search(text="x", after=datetime.date(2020, 1, 1), before=datetime.date(2019, 1, 1)))
    with pytest.raises(ServiceError, match="not a picture"):
        client.search(Search(like_image=b"no picture"))


def test_a_wrong_token_says_which_variable_to_set(client: Client) -> None:
    with Client(client.service, "another") as stranger, pytest.raises(ServiceError, match="PHOTOSEEK_TOKEN"):
        stranger.status()


def test_nobody_there_says_where(client: Client) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    with Client(nowhere) as stranger, pytest.raises(ServiceUnreachable, match=nowhere):
        stranger.status()
    with Client("not an address") as stranger, pytest.raises(ServiceUnreachable, match="not an address"):
        stranger.status()
    assert client.ready()


def test_a_service_that_keeps_silent_is_slow_rather_than_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(address, timeout=0.2) as client, pytest.raises(ServiceTooSlow, match=f"{address} took too long"):
            client.status()


def test_the_environment_names_service_and_token(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOSEEK_SERVICE", client.service + "/")
    monkeypatch.setenv("PHOTOSEEK_TOKEN", TOKEN)
    with Client.from_environment() as same:
        assert same.status() == client.status()
