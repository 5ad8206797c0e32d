# Sourced by start and test. Makes $root/.venv hold what requirements.lock says; does nothing when it already does.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3.11}" python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "PhotoSeek needs Python 3.11, and none was found. Install it, or name it: PYTHON=/path/to/python3.11 $0" >&2
    return 1
}

wanted() {
    echo "$root" # an environment that was moved has to be made again
    cat "$root/requirements.lock" "$root/pyproject.toml"
}

set_up() {
    wanted | cmp -s - "$root/.venv/installed" && return
    local python
    python=$(find_python)
    echo "Setting up PhotoSeek in $root/.venv (a few minutes, this once)." >&2
    "$python" -m venv --clear "$root/.venv"
    "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$root/requirements.lock"
    "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e "$root"
    wanted >"$root/.venv/installed"
}
