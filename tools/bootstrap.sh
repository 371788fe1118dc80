#!/usr/bin/env bash
# Sourced by the other tools: makes .venv with the package, its development tools and the versions of constraints.txt.
# Needs bash, Python >= 3.11 and a package index; uses uv where there is one. Does nothing when nothing changed.
# Afterwards VENV_BIN holds the folder of the environment's commands.
# TCAM_PYTHON names another interpreter.

REPO_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV_BIN=$REPO_ROOT/.venv/bin

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
    if command -v uv >/dev/null; then
        uv venv --quiet --clear --python "${python:->=3.11}" "$REPO_ROOT/.venv" || fail "uv could not make .venv"
        return
    fi
    [ -n "$python" ] || fail "Python >= 3.11 expected, none found on PATH: install one, or point TCAM_PYTHON at it"
    "$python" -m venv --clear "$REPO_ROOT/.venv" ||
        fail "'$python -m venv' failed: install the venv module (Debian: apt-get install python3-venv) or uv"
}

install_package() {
    printf 'bootstrap: installing the package and its tools into .venv (PyTorch is large: some minutes)\n' >&2
    pip_install -e "$REPO_ROOT[dev]" || fail "the packages could not be installed: is a package index reachable?"
    # Compiled here, so it can fail: the tests that need it are skipped then.
    pip_install -e "$REPO_ROOT[crf]" >/dev/null 2>&1 ||
        printf 'bootstrap: no pydensecrf: pydensecrf2 could not be built, for want of a C++ compiler perhaps\n' >&2
}

pip_install() {
    if command -v uv >/dev/null; then
        # Where Python may not keep bytecode, every command would compile PyTorch anew: 20 s a start.
        uv pip install --quiet ${PYTHONDONTWRITEBYTECODE:+--compile-bytecode} --python "$VENV_BIN/python" \
            -c "$REPO_ROOT/tools/constraints.txt" "$@"
    else
        "$VENV_BIN/python" -m pip install -qq --disable-pip-version-check --no-input \
            -c "$REPO_ROOT/tools/constraints.txt" "$@"
    fi
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
