"""The library page: what is indexed, indexing a folder as it goes on, and the files that failed."""

import streamlit as st

from indexer.errors import ServiceError
from ui._app_service import client, forget_answers
from ui._app_states import show_error
from ui._app_style import plain, quoted
from ui.client import Failure, Job, Status
from ui.wording import count, duration, file_size

_FAILURES_SHOWN = 200


def library_page() -> None:
    """Draw the page."""
    with st.container(key="library"):
        st.title("Library", anchor=False)
        try:
            _show_library()
        except ServiceError as error:
            show_error(error)


def _show_library() -> None:
    status, jobs = client().status(), client().jobs()
    latest = jobs[-1] if jobs else None
    _show_add(busy=latest is not None and latest.running)
    if latest:
        _show_job(latest)
    if status.photos or status.failed:
        _show_numbers(status)
        _show_folders(status)
        _show_failures(client().failures())


def _show_add(busy: bool) -> None:
    with st.form("add", border=False):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            folder = st.text_input("Folder of photos", placeholder="/home/ada/Pictures").strip()
            pressed = st.form_submit_button(
                "Index this folder", type="primary", icon=":material/create_new_folder:", disabled=busy
            )
        st.caption(
            "A folder on the machine that the service runs on, with all below it. Photos are read, never changed."
        )
    if pressed:
        _start(folder)


def _start(folder: str) -> None:
    if not folder:
        st.error("Say which folder: its whole path, as in /home/you/Pictures.", icon=":material/error:")
        return
    try:
        client().start_index(folder)
    except ServiceError as error:
        st.error(plain(str(error)), icon=":material/error:")
    else:
        st.rerun()


def _show_job(job: Job) -> None:
    st.fragment(_draw_job, run_every=0.5 if job.running else None)(job.id)


def _draw_job(job_id: str) -> None:
    try:
        job = client().job(job_id)
    except ServiceError as error:
        st.warning(plain(str(error)), icon=":material/error:")
        return
    with st.container(border=True, key="job"):
        if job.running:
            _show_running(job)
            st.session_state["seen_running"] = job.id
            return
        if st.session_state.get("seen_running") == job.id:
            st.session_state["seen_running"] = None
            forget_answers()
            st.rerun()
        _show_ended(job)


def _show_running(job: Job) -> None:
    progress = job.progress
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**Indexing {plain(', '.join(job.folders))}**", width="stretch")
        st.button("Stop", icon=":material/stop_circle:", on_click=_cancel, args=(job.id,))
    if progress is None or not progress.total:
        st.progress(0.0, "Looking for photos…")
        return
    speed = f"{progress.photos_per_second:.0f} photos per second" if progress.photos_per_second else ""
    left = f"{duration(progress.seconds_left)} left" if progress.seconds_left is not None else ""
    failed = f"{progress.failed:,} failed" if progress.failed else ""
    facts = " · ".join(fact for fact in (f"{progress.done:,} of {progress.total:,}", failed, speed, left) if fact)
    st.progress(progress.done / progress.total, facts)


def _cancel(job_id: str) -> None:
    try:
        client().cancel(job_id)
    except ServiceError as error:
        st.toast(plain(str(error)), icon=":material/error:")


def _show_ended(job: Job) -> None:
    folders = plain(", ".join(job.folders))
    if job.error is not None:
        st.markdown(f":material/error: **Indexing {folders} did not work.** {plain(job.error)}")
    elif job.state == "cancelled":
        st.markdown(
            f":material/stop_circle: **Stopped.** What was indexed of {folders} stays; index it again to go on."
        )
    else:
        st.markdown(f":material/check_circle: **{folders} is indexed.** {_summary(job)}")


def _summary(job: Job) -> str:
    if job.summary is None:
        return ""
    names = ("added", "updated", "moved", "unchanged", "removed", "failed")
    parts = [f"{job.summary[name]:,} {name}" for name in names if job.summary[name]]
    notes = "".join(f"\n\n{plain(note)}" for note in job.summary["notes"])
    return f"{', '.join(parts) or 'No photos found'} in {duration(job.summary['seconds'])}.{notes}"


def _show_numbers(status: Status) -> None:
    numbers = {
        "Photos": f"{status.photos:,}",
        "Distinct pictures": f"{status.pictures:,}",
        "Could not be read": f"{status.failed:,}",
        "Missing on disk": f"{status.missing:,}",
        "Model": status.model or "none yet",
        "On disk": file_size(status.size),
    }
    tiles = "".join(f"<div><dt>{name}</dt><dd>{quoted(value)}</dd></div>" for name, value in numbers.items())
    st.html(f'<dl class="ps-numbers">{tiles}</dl>')
    st.caption(f"Kept in {plain(status.directory)}; {plain(status.index)} index.")


def _show_folders(status: Status) -> None:
    st.subheader("Folders", anchor=False)
    for folder in status.folders:
        with st.container(key=f"folder-{folder.value}", horizontal=True, vertical_alignment="center", border=True):
            st.markdown(f":material/folder: {plain(folder.value)}", width="stretch")
            st.caption(count(folder.count, "photo"), width="content")
            if st.button(
                "Look again", icon=":material/refresh:", key=f"again {folder.value}", help="Index what changed"
            ):
                _start(folder.value)


def _show_failures(failures: tuple[Failure, ...]) -> None:
    if not failures:
        return
    st.subheader(f"{count(len(failures), 'file')} could not be read", anchor=False)
    st.caption("Everything else is indexed. Each of these is tried again when the file changes.")
    rows = "".join(
        f"<li><span>{quoted(failure.path)}</span><em>{quoted(failure.reason)}</em></li>"
        for failure in failures[:_FAILURES_SHOWN]
    )
    st.html(f'<ul class="ps-failures">{rows}</ul>')
    if len(failures) > _FAILURES_SHOWN:
        st.caption(f"and {count(len(failures) - _FAILURES_SHOWN, 'other')}: `photoseek failures` lists all.")
