import shutil
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image

from indexer.errors import PhotoNotFound
from indexer.library import Library
from indexer.model import Model
from indexer.pipeline import index_folders
from search.service import ServiceSettings
from search.service._photo_routes import _opened
from tests.search.service.conftest import running
from tests.search.service.test_search import assert_refused


def photo_id(client: httpx.Client, name: str) -> int:
    for result in client.get("/v1/search", params={"q": "a photo", "rerank": 0}).json()["results"]:
        if Path(result["path"]).name == name:
            return int(result["id"])
    raise LookupError(name)


def test_what_is_known_about_a_photo(client: httpx.Client, photos: Path) -> None:
    answer = client.get(f"/v1/photos/{photo_id(client, 'rocket.jpg')}").json()
    assert answer["path"] == str(photos / "rocket.jpg")
    assert answer["folder"] == str(photos)
    assert (answer["width"], answer["height"], answer["format"]) == (300, 200, "JPEG")
    assert (answer["camera"], answer["taken_at"]) == ("Canon EOS 5D", "2019-07-31T10:00:00")
    assert answer["size"] == (photos / "rocket.jpg").stat().st_size
    assert answer["copies"] == []


def test_thumbnail_is_served_once(client: httpx.Client) -> None:
    address = f"/v1/photos/{photo_id(client, 'rocket.jpg')}/thumbnail"
    response = client.get(address)
    assert response.headers["content-type"] == "image/webp"
    assert "private" in response.headers["cache-control"]
    assert Image.open(BytesIO(response.content)).size == (300, 200)
    again = client.get(address, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200


def test_lost_thumbnail_is_made_again(client: httpx.Client, directory: Path) -> None:
    address = f"/v1/photos/{photo_id(client, 'coins.jpg')}/thumbnail"
    before = client.get(address).content
    for file in (directory / "thumbnails").rglob("*"):
        if file.is_file():
            file.unlink()
    assert client.get(address).content == before


def test_a_photo_that_browsers_show_is_served_as_it_is(client: httpx.Client, photos: Path) -> None:
    address = f"/v1/photos/{photo_id(client, 'rocket.jpg')}/file"
    response = client.get(address)
    assert response.content == (photos / "rocket.jpg").read_bytes()
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert client.get(address, headers={"If-None-Match": response.headers["etag"]}).status_code == 304
    for part in ("bytes=0-9", "bytes=10000000-", "bytes=nonsense", "bytes=5-1,0-0,0-0"):
        whole = client.get(address, headers={"Range": part})
        assert (whole.status_code, whole.content) == (200, response.content)


def test_a_photo_that_browsers_cannot_show_is_served_as_jpeg(client: httpx.Client, photos: Path) -> None:
    address = f"/v1/photos/{photo_id(client, 'cat.heic')}/file"
    response = client.get(address)
    assert response.headers["content-type"] == "image/jpeg"
    shown = Image.open(BytesIO(response.content))
    assert (shown.format, shown.size) == ("JPEG", (451, 300))
    original = client.get(address, params={"original": True})
    assert original.content == (photos / "more" / "cat.heic").read_bytes()
    assert original.headers["content-type"] == "application/octet-stream"
    assert original.headers["content-disposition"] == "attachment; filename*=UTF-8''cat.heic"
    assert original.headers["content-length"] == str(len(original.content))


@pytest.mark.parametrize("part", ["", "/thumbnail", "/file", "/similar"])
def test_only_indexed_photos_are_served(client: httpx.Client, part: str) -> None:
    assert_refused(client.get(f"/v1/photos/1000000{part}"), 404, "photo_not_found")
    assert_refused(client.get(f"/v1/photos/{2**63}{part}"), 422, "request_invalid")
    assert_refused(client.get(f"/v1/photos/0{part}"), 422, "request_invalid")
    assert client.get(f"/v1/photos/..%2f..%2fetc%2fpasswd{part}").status_code in (404, 422)


def test_a_file_that_has_changed_is_not_served(photos: Path, model: Model, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    secret = tmp_path / "secret"
    secret.write_text("no photo at all")
    for name in ("rocket.jpg", "coins.jpg"):
        shutil.copy(photos / name, tmp_path / "photos")
    with Library.create(tmp_path / "library") as library:
        index_folders(library, model, [tmp_path / "photos"])
    with running(ServiceSettings(library=tmp_path / "library", device="cpu")) as client:
        rocket, coins = photo_id(client, "rocket.jpg"), photo_id(client, "coins.jpg")
        (tmp_path / "photos" / "rocket.jpg").unlink()
        (tmp_path / "photos" / "rocket.jpg").symlink_to(secret)
        shutil.copyfile(photos / "astronaut.jpg", tmp_path / "photos" / "coins.jpg")
        for changed in (rocket, coins):
            for params in ({}, {"original": True}):
                response = client.get(f"/v1/photos/{changed}/file", params=params)
                assert "has changed" in assert_refused(response, 404, "photo_not_found")


def test_a_file_that_has_become_a_link_out_of_its_folder_is_not_served(
    photos: Path, model: Model, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(photos / "rocket.jpg", tmp_path / "photos")
    with Library.create(tmp_path / "library") as library:
        index_folders(library, model, [tmp_path / "photos"])
    secret = (tmp_path / "photos" / "rocket.jpg").rename(tmp_path / "secret")  # of the same size and time
    (tmp_path / "photos" / "rocket.jpg").symlink_to(secret)
    with running(ServiceSettings(library=tmp_path / "library", device="cpu")) as client:
        rocket = photo_id(client, "rocket.jpg")
        for params in ({}, {"original": True}):
            response = client.get(f"/v1/photos/{rocket}/file", params=params)
            assert "has changed" in assert_refused(response, 404, "photo_not_found")


def test_a_photo_whose_file_is_gone(photos: Path, model: Model, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(photos / "rocket.jpg", tmp_path / "photos")
    with Library.create(tmp_path / "library") as library:
        index_folders(library, model, [tmp_path / "photos"])
    with running(ServiceSettings(library=tmp_path / "library", device="cpu")) as client:
        (tmp_path / "photos" / "rocket.jpg").unlink()
        rocket = photo_id(client, "rocket.jpg")
        assert client.get(f"/v1/photos/{rocket}/thumbnail").status_code == 200
        assert "Index its folder again" in assert_refused(
            client.get(f"/v1/photos/{rocket}/file"), 404, "photo_not_found"
        )


def test_a_file_that_goes_between_the_look_and_the_opening(photos: Path, model: Model, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    copy = Path(shutil.copy(photos / "rocket.jpg", tmp_path / "photos"))
    with Library.create(tmp_path / "library") as library:
        index_folders(library, model, [tmp_path / "photos"])
        record = library.photo(1)
    file, size = _opened(record)
    with file:
        assert (file.read(), size) == (copy.read_bytes(), record.size)
    copy.unlink()
    with pytest.raises(PhotoNotFound, match="Index its folder again"):
        _opened(record)
