"""Memory that decoders share: the machine's, or what the control groups around the process leave of it."""

from pathlib import Path

import psutil
import pytest

from indexer.photos._memory import usable_memory

MACHINE = psutil.virtual_memory().total
OWN = "user.slice/run-1.scope"


def system(root: Path, membership: str, limits: dict[str, str]) -> Path:
    """A file system that says this of control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for group, limit in limits.items():
        directory = root / "sys/fs/cgroup" / group
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "memory.max").write_text(f"{limit}\n")
    return root


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        (f"0::/{OWN}\n", {OWN: "2000000000"}, 2_000_000_000),
        (f"0::/{OWN}\n", {OWN: "max", "user.slice": "1500000000"}, 1_500_000_000),
        (f"0::/{OWN}\n", {OWN: "2000000000", "user.slice": "3000000000"}, 2_000_000_000),
        (f"0::/{OWN}\n", {OWN: "max"}, MACHINE),
        (f"0::/{OWN}\n", {OWN: str(2**62)}, MACHINE),
        ("0::/\n", {"": "1000000000"}, 1_000_000_000),
        (f"0::/{OWN}\n", {"": "1000000000"}, 1_000_000_000),
        (f"4:memory:/{OWN}\n0::/\n", {OWN: "1000000000"}, MACHINE),
    ],
    ids=["own", "around", "least", "none", "beyond", "container", "container of the host's name", "version 1"],
)
def test_the_least_limit_counts(tmp_path: Path, membership: str, limits: dict[str, str], expected: int) -> None:
    assert usable_memory(system(tmp_path, membership, limits)) == expected


def test_without_control_groups_it_is_the_machines(tmp_path: Path) -> None:
    assert usable_memory(tmp_path) == MACHINE
