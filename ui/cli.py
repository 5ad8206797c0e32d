"""The command ``photoseek``.

Exit codes: 0 done, 1 an error (one line on standard error), 2 wrong usage, 130 interrupted, 143 terminated. A command
imports what it needs only when it runs, so that ``--help``, ``status`` and ``failures`` never wait for PyTorch.
"""

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer.errors import PhotoSeekError, PhotoUnreadable, QueryInvalid, ServiceError
from ui import _cli_output as output
from ui import _cli_report as report
from ui._cli_types import Device, LogLevel, PhotoFormat, default_library, parse_date, parse_near

if TYPE_CHECKING:
    from PIL.Image import Image

    from indexer.library import Library
    from indexer.pipeline import IndexSummary
    from indexer.progress import Progress

_INTERRUPTED = 130
_TERMINATED = 143

app = typer.Typer(
    help="Type what you remember; get the photo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

LibraryOption = Annotated[
    Path,
    typer.Option(
        "--library",
        metavar="DIR",
        default_factory=default_library,
        readable=False,  # what is wrong with it is said when it is opened, with exit code 1
        show_default="$PHOTOSEEK_LIBRARY, else your data folder",
        help="The library: where the index is kept.",
    ),
]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where the model runs.")]
AllowFolderOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--allow-folder",
        metavar="DIR",
        show_default="your home folder; off this machine none",
        help="May be indexed over HTTP, as may what the library has already. Repeat for more.",
    ),
]
MatchCacheOption = Annotated[
    int | None,
    typer.Option(
        "--match-cache-mb",
        metavar="N",
        min=0,
        show_default="as before, at first 4000",
        help="How large the library's match features may become, in megabytes, from now on.",
    ),
]
KeepLoadedOption = Annotated[
    float | None,
    typer.Option(
        "--keep-loaded",
        metavar="MINUTES",
        min=0,
        show_default="for good",
        help="How long BLIP-2's image encoder, 2 to 4 GB, stays in memory after it was needed.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command line; errors raised on purpose become one line on standard error."""
    try:
        app(prog_name="photoseek")
    except QueryInvalid as error:
        output.complain(str(error))
        sys.exit(2)
    except PhotoSeekError as error:
        output.complain(str(error))
        sys.exit(1)
    except OSError as error:
        output.complain(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        output.print_line(f"photoseek {version('photoseek')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def index(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of photos, with all below them.")],
    library: LibraryOption,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="the library's, else compact",
            help="A model's name, or a checkpoint's directory.",
        ),
    ] = None,
    device: DeviceOption = Device.AUTO,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Prepare BLIP-2's image encoder with torch.compile: minutes, then faster.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on: index what changes, until Ctrl-C.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Photos that are not there are gone for good, however many they are.")
    ] = False,
    match_cache_mb: MatchCacheOption = None,
    profile: Annotated[bool, typer.Option("--profile", help="Say where the time went.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Index folders of photos. Run it again whenever you like: only what changed costs time."""
    if watch and prune:
        raise typer.BadParameter("--watch and --prune exclude each other: prune first, then watch.")
    with _importing():
        from indexer.library import Library
        from indexer.pending_model import model_when_needed
        from indexer.pipeline import index_folders
        from ui._cli_progress import progress_view

    with _stopped_by_sigterm() as stop, Library.create(library) as opened, progress_view() as view:
        _limit_match_cache(opened, match_cache_mb)
        needed = model_when_needed(model or _model_name(opened) or "compact", device, compiled=compiled)

        def show(event: "Progress") -> None:
            if event.stage == "scanning":
                view.show(event.stage, event.total, None)
            else:
                view.show(event.stage, event.done, event.total, report.pace(event))

        def tell(summary: "IndexSummary") -> None:
            report.print_summary(summary, as_json, profile)

        if watch:
            from indexer.watch import watch_folders

            watch_folders(opened, needed, folders, on_summary=tell, stop=stop, on_progress=show)
            raise typer.Exit(_INTERRUPTED)
        summary = index_folders(opened, needed, folders, on_progress=show, cancelled=stop, prune=prune)
        tell(summary)
        if summary.cancelled:
            raise typer.Exit(_INTERRUPTED)


@app.command()
def search(
    library: LibraryOption,
    text: Annotated[str | None, typer.Argument(help="What the photo shows.")] = None,
    without: Annotated[
        list[str] | None, typer.Option("--not", metavar="TEXT", help="What it must not show. Repeat for more.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, readable=True, help="A picture it should resemble."),
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="How many results.")] = 20,
    rerank: Annotated[int, typer.Option(metavar="N", min=0, help="How many candidates get a match score.")] = 50,
    min_match: Annotated[
        float | None, typer.Option(metavar="P", min=0, max=1, help="Only matches at least this probable, 0 to 1.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(metavar="DIR", help="Only photos in or below this folder.")] = None,
    after: Annotated[
        Any, typer.Option(metavar="DATE", parser=parse_date, help="Only photos taken on this day or later.")
    ] = None,
    before: Annotated[
        Any, typer.Option(metavar="DATE", parser=parse_date, help="Only photos taken on this day or earlier.")
    ] = None,
    camera: Annotated[str | None, typer.Option(metavar="TEXT", help="Only cameras whose name has this in it.")] = None,
    near: Annotated[
        Any, typer.Option(metavar="LAT,LON,KM", parser=parse_near, help="Only photos taken this near a place.")
    ] = None,
    formats: Annotated[
        list[PhotoFormat] | None,
        typer.Option("--format", case_sensitive=False, help="Only this file format. Repeat for more."),
    ] = None,
    device: DeviceOption = Device.AUTO,
    as_json: JsonOption = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print one path a line, for piping.")] = False,
) -> None:
    """Find photos by what they show, best match first."""
    with _importing():
        from indexer.library import Filters, Library
        from search.query import SearchQuery

    if text is None and like is None:
        raise typer.BadParameter("Say in TEXT what to look for, or give --like a picture.")
    if as_json and paths:
        raise typer.BadParameter("--json and --paths exclude each other.")
    query = SearchQuery(
        text=text,
        without=tuple(without or ()),
        like=None if like is None else _open_picture(like),
        filters=Filters(
            folder=None if folder is None else folder.resolve(),
            after=after,
            before=before,
            camera=camera,
            near=near,
            formats=tuple(formats or ()),
        ),
        min_match=min_match,
        top=top,
        rerank=rerank,
    )
    with Library.open(library) as opened:
        with _importing():
            from indexer.model import load_model
            from search.decoding import Decoding
            from search.document import search_document
            from search.engine import SearchEngine

        loaded = load_model(_model_name(opened) or "compact", device)
        with contextlib.closing(Decoding(processes=1)) as decoding:
            response = SearchEngine(opened, loaded, decoding.pixels).search(query)
        for note in opened.take_notes():
            output.note(note)
    if as_json:
        output.print_json(search_document(response))
    elif paths:
        for result in response.results:
            output.print_path(result.photo.path)
    else:
        report.print_results(response)


@app.command()
def ui(
    library: LibraryOption,
    device: DeviceOption = Device.AUTO,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=65535, show_default="8501, else a free one", help="Where the page listens."
        ),
    ] = None,
    service: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="PHOTOSEEK_SERVICE",
            show_default="one that runs for this library, else a new one",
            help="The service that answers.",
        ),
    ] = None,
    allow_folders: AllowFolderOption = None,
    match_cache_mb: MatchCacheOption = None,
    keep_loaded: KeepLoadedOption = None,
) -> None:
    """Open the search page, and the service behind it if none runs, which gets these options. Ctrl-C ends both."""
    from ui._launch import run_app

    options = ["--device", device.value]
    for folder in allow_folders or ():
        options += ["--allow-folder", str(folder)]
    if match_cache_mb is not None:
        options += ["--match-cache-mb", str(match_cache_mb)]
    if keep_loaded is not None:
        options += ["--keep-loaded", str(keep_loaded)]
    run_app(library, port, service, report.print_addresses, options)


@app.command()
def serve(
    library: LibraryOption,
    device: DeviceOption = Device.AUTO,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Off this machine it needs $PHOTOSEEK_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Where it listens; 0: any free port.")
    ] = 8765,
    allow_folders: AllowFolderOption = None,
    match_cache_mb: MatchCacheOption = None,
    keep_loaded: KeepLoadedOption = None,
    log_level: Annotated[
        LogLevel, typer.Option("--log-level", help="What it tells on standard error, one JSON object a line.")
    ] = LogLevel.INFO,
) -> None:
    """Serve searches over HTTP."""
    # Until the server itself obeys the signal there is nothing to finish.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if match_cache_mb is not None:
        from indexer.library import Library

        with Library.create(library) as opened:
            _limit_match_cache(opened, match_cache_mb)
    from search.service import ServiceSettings
    from search.service import serve as serve_http

    token = os.environ.get("PHOTOSEEK_TOKEN")
    settings = ServiceSettings(
        library=library,
        device=device,
        host=host,
        port=port,
        token=token,
        allowed_folders=None if allow_folders is None else tuple(allow_folders),
        keep_loaded=None if keep_loaded is None else keep_loaded * 60,
    )
    try:
        serve_http(settings, log_level.value)
    except SystemExit as end:  # so Uvicorn ends when it cannot start
        if end.code:
            raise ServiceError(f"Cannot listen on {host}, port {port}. Is it taken? Give another --port.") from None


@app.command()
def status(library: LibraryOption) -> None:
    """Say what the library holds."""
    with _importing():
        from indexer.library import Library

    with Library.open(library) as opened:
        report.print_status(opened.status())


@app.command()
def failures(library: LibraryOption) -> None:
    """List the files that could not be indexed, and why. Each is tried again when it changes."""
    with _importing():
        from indexer.library import Library

    with Library.open(library) as opened:
        failed = opened.failures()
    output.print_rows(("File", "Reason"), [(str(failure.path), failure.reason) for failure in failed])
    if not failed:
        output.note("No failures: every photo found is indexed.")


@app.command()
def verify(
    library: LibraryOption,
    repair: Annotated[bool, typer.Option("--repair", help="Make again what can be made again.")] = False,
) -> None:
    """Check that catalog, vectors and caches agree."""
    from indexer.library import Library

    if repair:
        verified = Library.repair(library)
    else:
        with Library.open(library) as opened:
            verified = opened.verify()
    report.print_verification(verified)
    for note in verified.notes:
        output.note(note)
    if not verified.ok:
        output.note("These need more than a repair." if repair else "To repair what can be: photoseek verify --repair")
        raise typer.Exit(1)


@app.command()
def models() -> None:
    """List the models."""
    from indexer.model import available_models

    rows = [(model.name, model.summary, model.needs) for model in available_models()]
    output.print_rows(("Name", "What it is", "What it needs"), rows)


@app.command()
def evaluate(
    captions: Annotated[
        Path,
        typer.Argument(metavar="CAPTIONS.jsonl", exists=True, readable=True, help="Photos and what is said of them."),
    ],
    rerank: Annotated[int, typer.Option(metavar="N", min=0, help="How many candidates the ITM head reranks.")] = 128,
    sample: Annotated[
        int | None, typer.Option(metavar="N", min=1, show_default="all", help="Ask only this many random queries.")
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="A model's name, or a checkpoint's directory.")
    ] = "compact",
    device: DeviceOption = Device.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Measure how well a model finds captioned photos, as recall at 1, 5 and 10."""
    # Else the library that it makes, to throw it away, would stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    from indexer.model import load_model
    from search.evaluation import evaluate as measure
    from ui._cli_progress import progress_view

    loaded = load_model(model, device)
    with progress_view() as view:
        evaluation = measure(
            captions,
            loaded,
            rerank=rerank,
            sample=sample,
            on_progress=lambda event: view.show(event.stage, event.done, event.total),
        )
    if as_json:
        output.print_json(evaluation.as_dict())
    else:
        report.print_evaluation(evaluation)


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, so that a run ends as by Ctrl-C; the exit code then says by which of the two."""
    stop, terminated = threading.Event(), threading.Event()

    def terminate(_number: int, _frame: object) -> None:
        terminated.set()
        stop.set()

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield stop
    except typer.Exit:
        if terminated.is_set():
            raise typer.Exit(_TERMINATED) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """Import without the garbage collector, and keep from it what was imported: all that stays until the end.

    Looking through it again and again takes a quarter of the time of a command that has nothing to do.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _open_picture(path: Path) -> "Image":
    from search.decoding import Decoding

    try:
        with contextlib.closing(Decoding(processes=1)) as decoding:
            return decoding.picture(path)
    except PhotoUnreadable as error:
        raise PhotoUnreadable(f"{path}: {error}") from error


def _limit_match_cache(library: "Library", megabytes: int | None) -> None:
    if megabytes is not None:
        library.limit_match_features(megabytes * 10**6)


def _model_name(library: "Library") -> str | None:
    identity = library.active_model()
    return None if identity is None else identity.name


if __name__ == "__main__":
    main()
