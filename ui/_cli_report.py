"""What the commands report, in words and rows."""

from typing import TYPE_CHECKING

from ui._cli_output import note, print_facts, print_json, print_line, print_rows
from ui.wording import count, duration, file_size, match_words, percent

if TYPE_CHECKING:
    from indexer.library import LibraryStatus, VerifyReport
    from indexer.pipeline import IndexSummary
    from indexer.profile import Profile
    from indexer.progress import Progress
    from search.evaluation import Evaluation
    from search.query import SearchResponse


def pace(progress: "Progress") -> str:
    parts = [f"{progress.photos_per_second:.1f} photos/s"] if progress.photos_per_second else []
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    return ", ".join(parts)


def print_summary(summary: "IndexSummary", as_json: bool, profile: bool) -> None:
    if as_json:
        print_json(summary.as_dict() | ({"profile": summary.profile.as_dict()} if profile else {}), indent=None)
    else:
        print_line(
            f"{summary.added:,} added, {summary.updated:,} updated, {summary.moved:,} moved, "
            f"{summary.unchanged:,} unchanged, {summary.removed:,} removed, {summary.failed:,} failed "
            f"in {duration(summary.seconds)}"
        )
        if profile:
            print_profile(summary.profile)
    if summary.failed:
        note(f"{count(summary.failed, 'file')} could not be indexed. To see which and why: photoseek failures")
    for each in summary.notes:
        note(each)
    if summary.cancelled:
        note("Interrupted. What was done is kept; run the same command to go on.")


def print_profile(profile: "Profile") -> None:
    print_rows(
        ("Worker", "Stage", "Seconds", "Of the run"),
        [(each.worker, each.stage, f"{each.seconds:.2f}", percent(each.share)) for each in profile.stages],
    )


def print_status(status: "LibraryStatus") -> None:
    print_facts(
        [
            ("Library", str(status.directory)),
            ("Format", str(status.format_version)),
            ("Photos", f"{status.photos:,}"),
            ("Distinct pictures", f"{status.pictures:,}"),
            ("Failed", f"{status.failed:,}"),
            ("Missing", f"{status.missing:,}"),
            *(("Folder", f"{folder.path} ({count(folder.photos, 'photo')})") for folder in status.folders),
            ("Model", "none yet" if status.model is None else f"{status.model.name} {status.model.revision}"),
            ("Vectors", f"{status.vectors:,}"),
            ("Index", _index(status)),
            *((f"Size of {part.replace('_', ' ')}", file_size(size)) for part, size in status.bytes.items()),
            ("Match features", _match_features(status)),
        ]
    )


def _index(status: "LibraryStatus") -> str:
    recall = "not measured yet" if status.index_recall is None else f"{status.index_recall:.1%}"
    return (
        f"{status.index_kind}; {file_size(status.index_ram_bytes)} of memory a picture, recall of the best 10 {recall}"
    )


def _match_features(status: "LibraryStatus") -> str:
    limit = f"at most {file_size(status.match_cache_bytes)}"
    if not status.match_features:
        return f"none yet, {limit}"
    each = file_size(status.bytes["match_features"] // status.match_features)
    return f"{count(status.match_features, 'picture')}, {each} each, {limit}"


def print_verification(report: "VerifyReport") -> None:
    rows = [(finding, "repaired" if finding in report.repaired else "not repaired") for finding in report.findings]
    if rows:
        print_rows(("Finding", "State"), rows)
    else:
        print_line("Catalog, vectors and caches agree.")


def print_results(response: "SearchResponse") -> None:
    print_rows(
        ("", "Match", "", "Photo"),
        [
            (
                str(result.rank),
                "" if result.match is None else percent(result.match),
                "" if result.match is None else match_words(result.match),
                str(result.photo.path),
            )
            for result in response.results
        ],
    )
    note(
        f"{count(response.considered, 'picture')} considered in {response.took_ms['total']:.0f} ms"
        if response.results
        else _why_nothing(response)
    )


def print_addresses(page: str, service: str) -> None:
    print_line(f"PhotoSeek is at {page} and its API at {service}/docs. Ctrl-C ends both.")


def print_evaluation(evaluation: "Evaluation") -> None:
    directions = {
        "text to image": evaluation.text_to_image,
        "image to text": evaluation.image_to_text,
        "names": evaluation.names,
    }
    rows = [
        (
            name,
            head,
            str(direction.queries),
            _measured(found.r1, found.r1_ci),
            _measured(found.r5, found.r5_ci),
            _measured(found.r10, found.r10_ci),
            _measured(found.median_rank, found.median_rank_ci),
        )
        for name, direction in directions.items()
        if direction is not None
        for head, found in (("ITC", direction.itc), ("ITM", direction.itm))
        if found is not None
    ]
    print_rows(("Direction", "Order by", "Queries", "R@1", "R@5", "R@10", "Median rank"), rows)
    if evaluation.itm_calibration is not None:
        calibration = evaluation.itm_calibration
        print_line(f"match probability: AUROC {calibration.auroc:.3f}, calibration error {calibration.ece:.3f}")
    note(f"{count(evaluation.photos, 'photo')}, {count(evaluation.captions, 'caption')}; in brackets 95 % intervals")


def _measured(value: float, interval: tuple[float, float]) -> str:
    """25.0, (23.8, 26.2) -> "25.0 (23.8–26.2)"."""
    low, high = interval
    return f"{value:.1f} ({low:.1f}–{high:.1f})"


def _why_nothing(response: "SearchResponse") -> str:
    if response.query.min_match is not None and response.considered:
        return "Nothing matches that well. Try a lower --min-match, or none."
    if response.considered:
        return "Nothing is left: every candidate shows what --not excludes."
    return "No photo to search: none is indexed, or none passes the filters."
