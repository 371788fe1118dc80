#!/usr/bin/env bash
# Sourced by the other tools: makes .venv with the package, its development tools and the versions of constraints.txt.
# Needs bash, Python >= 3.11 and a package index; uses uv where there is one. Does nothing when nothing changed.
# Afterwards VENV_BIN holds the folder of the environment's commands.
# TCAM_PYTHON names another interpreter. The installer's whole output is kept in .venv/bootstrap.log.

REPO_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV_BIN=$REPO_ROOT/.venv/bin
LOG=$REPO_ROOT/.venv/bootstrap.log

fail() {
    printf 'bootstrap: %s\n' "$1" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in "${TCAM_PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
}

make_venv() {
    local python
    python=$(find_python)
    say "1/3 environment: .venv"
    if command -v uv >/dev/null; then
        uv venv --quiet --clear --python "${python:->=3.11}" "$REPO_ROOT/.venv" || fail "uv could not make .venv"
        return
    fi
    [ -n "$python" ] || fail "Python >= 3.11 expected, none found on PATH: install one, or point TCAM_PYTHON at it"
    "$python" -m venv --clear "$REPO_ROOT/.venv" ||
        fail "'$python -m venv' failed: install the venv module (Debian: apt-get install python3-venv) or uv"
}

install_package() {
    local packages
    packages=$(grep -c '==' "$REPO_ROOT/tools/constraints.txt")
    say "2/3 packages: about $packages, on Linux some 7 GB with the CUDA libraries of PyTorch; minutes"
    watched pip_install -e "$REPO_ROOT[dev]" || {
        tail -n 20 "$LOG" >&2
        fail "the packages could not be installed: is a package index reachable? All of the output: $LOG"
    }
    # Compiled here, so it can fail: the tests that need it are skipped then.
    say "3/3 pydensecrf, which is compiled: half a minute"
    watched pip_install -e "$REPO_ROOT[crf]" ||
        say "no pydensecrf: it could not be compiled, for want of a C++ compiler perhaps ($LOG)"
    say "done: .venv has $(size_of_venv), $(elapsed) in all"
}

pip_install() {
    if command -v uv >/dev/null; then
        # Where Python may not keep bytecode, every command would compile PyTorch anew: 20 s a start.
        uv pip install ${PYTHONDONTWRITEBYTECODE:+--compile-bytecode} --python "$VENV_BIN/python" \
            -c "$REPO_ROOT/tools/constraints.txt" "$@"
    else
        "$VENV_BIN/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
            -c "$REPO_ROOT/tools/constraints.txt" "$@"
    fi
}

say() {
    printf 'bootstrap: %s\n' "$1" >&2
}

# Runs a command with its output in $LOG, and shows how far it is: in one moving line on a terminal, else in a line now and then.
watched() {
    local watcher status=0
    show_progress &
    watcher=$!
    "$@" >"$LOG" 2>&1 || status=$?
    kill "$watcher" 2>/dev/null
    wait "$watcher" 2>/dev/null || true
    [ ! -t 2 ] || printf '\r\033[K' >&2
    return "$status"
}

show_progress() {
    local pause=1 begin='\r\033[K' end='' size='' next_size=0
    [ -t 2 ] || { pause=${TCAM_PROGRESS_S:-20} begin='' end='\n'; }
    # A sleep that outlives this loop must not hold the terminal or the pipe of stderr.
    while sleep "$pause" >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
        if [ "$SECONDS" -ge "$next_size" ]; then
            size=$(size_of_venv) || true
            next_size=$((SECONDS + 10))
        fi
        printf "$begin%.79s$end" "  $(elapsed), $size: $(last_step)" >&2
    done
}

elapsed() {
    printf '%d:%02d min' $((SECONDS / 60)) $((SECONDS % 60))
}

size_of_venv() {
    du -sh "$REPO_ROOT/.venv" 2>/dev/null | cut -f1
}

# What the installer does: its newest line without the tags of wheels; while pip unpacks it says nothing, but the newest file does.
last_step() {
    local line
    line=$(grep -v '^WARNING' "$LOG" 2>/dev/null | tail -n 1 | sed -E 's/^ +//; s/-(cp|py)[0-9][^ ]*//; s/ \(from .*//')
    case $line in
    Installing\ * | Attempting\ uninstall* | Found\ existing* | Uninstalling\ * | Successfully\ uninstalled*)
        line="Unpacking $(ls -t "$REPO_ROOT"/.venv/lib/python3*/site-packages 2>/dev/null | head -n 1)"
        ;;
    esac
    printf '%s' "$line"
}

bootstrap() {
    local stamp=$REPO_ROOT/.venv/.tcam-installed wanted
    # The path belongs to the stamp: an environment that was copied or moved still points at its old place.
    wanted="$REPO_ROOT $(cat "$REPO_ROOT"/{pyproject.toml,tools/constraints.txt,tools/bootstrap.sh} | cksum)"
    if [ -x "$VENV_BIN/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    "$VENV_BIN/python" -c '' 2>/dev/null || make_venv
    install_package
    printf '%s\n' "$wanted" >"$stamp"
}

bootstrap
