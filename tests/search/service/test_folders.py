"""Which folders may be indexed over HTTP."""

import shutil
from pathlib import Path

import httpx
import pytest

from indexer.errors import FolderNotFound
from indexer.library import Library
from search.service import ServiceSettings
from search.service._errors import RequestRefused
from search.service._folders import AllowedFolders
from tests.search.service.conftest import running
from tests.search.service.test_search import assert_refused


@pytest.fixture
def allowed(tmp_path: Path) -> AllowedFolders:
    """``indexed``, which the library has, and ``allowed``."""
    for name in ("indexed/2020", "allowed/2021", "allowed elsewhere", "private"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "allowed" / "out").symlink_to(tmp_path / "private")
    (tmp_path / "in").symlink_to(tmp_path / "allowed")
    library = Library.create(tmp_path / "library")
    with library.writer() as writer:
        writer.add_folder(tmp_path / "indexed")
    return AllowedFolders(library, [tmp_path / "allowed"])


@pytest.mark.parametrize("inside", ["allowed", "allowed/2021", "indexed", "indexed/2020", "allowed/../indexed", "in"])
def test_allowed_folders_and_what_is_below_them(allowed: AllowedFolders, tmp_path: Path, inside: str) -> None:
    assert allowed.resolve(str(tmp_path / inside)) == (tmp_path / inside).resolve()


@pytest.mark.parametrize(
    "outside", ["", "private", "allowed elsewhere", "allowed/..", "allowed/../private", "allowed/out", "nothing"]
)
def test_other_folders_are_refused_there_or_not(allowed: AllowedFolders, tmp_path: Path, outside: str) -> None:
    with pytest.raises(RequestRefused, match="--allow-folder") as refused:
        allowed.resolve(str(tmp_path / outside))
    assert (refused.value.status, refused.value.code) == (403, "folder_not_allowed")


@pytest.mark.parametrize("asked", ["allowed", "~nobody/x", "~root", "file:///", "", "/a\0b", "\0"])
def test_what_is_no_whole_path(allowed: AllowedFolders, asked: str) -> None:
    with pytest.raises(FolderNotFound, match="not a whole path"):
        allowed.resolve(asked)


def test_an_indexed_folder_that_is_gone_is_left_to_the_indexer(allowed: AllowedFolders, tmp_path: Path) -> None:
    (tmp_path / "indexed").rename(tmp_path / "away")
    assert allowed.resolve(str(tmp_path / "indexed")) == tmp_path / "indexed"
    with pytest.raises(FolderNotFound, match="There is no folder"):
        allowed.resolve(str(tmp_path / "indexed" / "2020"))


@pytest.mark.parametrize("name", ["none", "file", "x" * 300])
def test_allowed_but_no_folder(allowed: AllowedFolders, tmp_path: Path, name: str) -> None:
    (tmp_path / "allowed" / "file").touch()
    with pytest.raises(FolderNotFound, match="There is no folder"):
        allowed.resolve(str(tmp_path / "allowed" / name))


def test_the_home_folder_is_the_default_on_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    allowed = AllowedFolders(Library.create(tmp_path / "library"), ServiceSettings(library=tmp_path).indexable)
    assert allowed.resolve("~") == tmp_path
    (tmp_path / "Pictures").mkdir()
    assert allowed.resolve("~/Pictures") == tmp_path / "Pictures"
    assert ServiceSettings(library=tmp_path, host="0.0.0.0", token="secret").indexable == ()
    assert ServiceSettings(library=tmp_path, allowed_folders=()).indexable == ()


def test_the_service_indexes_only_allowed_folders(directory: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "library")
    with running(ServiceSettings(library=tmp_path / "library", device="cpu", allowed_folders=())) as client:
        assert_refused(_index(client, photos, tmp_path), 403, "folder_not_allowed")
        assert client.get("/v1/jobs").json() == {"jobs": []}
        assert _index(client, photos / "more").status_code == 202


def test_no_link_leads_out_of_an_allowed_folder(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    shutil.copy(photos / "rocket.jpg", tmp_path / "allowed")
    (tmp_path / "allowed" / "out.jpg").symlink_to(photos / "coins.jpg")
    settings = ServiceSettings(library=tmp_path / "library", device="cpu", allowed_folders=(tmp_path / "allowed",))
    with running(settings) as client:
        job = _index(client, tmp_path / "allowed").json()
        client.get(f"/v1/jobs/{job['id']}/events")
        summary = client.get(f"/v1/jobs/{job['id']}").json()["summary"]
    assert (summary["added"], summary["failed"]) == (1, 0)
    assert "has links to photos outside it, 1 in all" in summary["notes"][0]


def _index(client: httpx.Client, *folders: Path) -> httpx.Response:
    return client.post("/v1/index", json={"folders": [str(folder) for folder in folders]})
