# What libtorch.sh, nccl_headers.sh and meteor.sh share; sourced first by each. It takes files out of PyPI wheels into a folder that
# appears under its name when it is complete, never before. stdout stays free for `export …` lines.

script=$(basename "$0")

say() { printf '%s: %s\n' "${script%.sh}" "$*" >&2; }
fail() { # MESSAGE HELP
    printf 'error: %s\n  help: %s\n' "$1" "$2" >&2
    exit 1
}

# folder NAME MARKER [DIR]: sets $dir, DIR or the folder NAME of the cache, and $marker, the file in it that says it is complete.
folder() {
    dir=${3:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/vlp/$1}
    case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
    marker=.complete-$2
}

complete() { [ -e "$dir/$marker" ]; }

# begin HELP: makes $work beside $dir, to be filled below $work/out, and finds pip; HELP says how to get Python.
begin() {
    python_help=$1
    [ ! -e "$dir" ] || fail "$dir exists, but this script did not complete it" "remove it, or name another folder: scripts/$script DIR"
    command -v python3 >/dev/null || fail "no python3, which fetches and unpacks the wheels" "$python_help"
    mkdir -p "$(dirname "$dir")"
    work=$(mktemp -d "$dir.part-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    if python3 -m pip --version >/dev/null 2>&1; then
        pip=(python3 -m pip)
    else
        python3 -m venv "$work/venv" >&2 || fail "python3 has neither pip nor venv" "$python_help"
        pip=("$work/venv/bin/python3" -m pip)
    fi
}

# download NAME==VERSION OPTION…: downloads a wheel into $work/wheel, which it is alone in.
download() {
    local requirement=$1
    shift
    say "downloading $requirement"
    rm -rf "$work/wheel"
    "${pip[@]}" --quiet --disable-pip-version-check download --no-deps --no-cache-dir --only-binary=:all: "$@" \
        --dest "$work/wheel" "$requirement" >&2 ||
        fail "could not download $requirement from PyPI" "check the network and the disk space, then run this again"
}

# take NAME==VERSION PATTERN…: downloads a wheel, writes the members that match into $work/out, drops the wheel.
# `…/include/…` keeps its folders below `include/`, libraries go to `lib/`. A pattern without a match is an error.
take() {
    local requirement=$1
    shift
    download "$requirement" --implementation cp --python-version 3.11 --platform manylinux_2_28_x86_64 \
        --platform manylinux2014_x86_64 --platform manylinux2010_x86_64
    python3 - "$work/wheel" "$work/out" "$@" >&2 <<'PYTHON'
import fnmatch, os, shutil, sys, zipfile

wheels, target, *patterns = sys.argv[1:]
(name,) = os.listdir(wheels)
with zipfile.ZipFile(os.path.join(wheels, name)) as wheel:
    for pattern in patterns:
        members = [m for m in wheel.namelist() if fnmatch.fnmatchcase(m, pattern) and not m.endswith("/")]
        if not members:
            sys.exit(f"error: {name} has no member that matches {pattern}")
        for member in members:
            _, found, rest = member.partition("/include/")
            inside = "include/" + rest if found else "lib/" + os.path.basename(member)
            path = os.path.join(target, inside)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with wheel.open(member) as source, open(path, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
PYTHON
    rm -rf "$work/wheel"
}

# finish: gives $work/out its name. Another run may have finished meanwhile: its folder is as good as this one.
finish() {
    touch "$work/out/$marker"
    chmod 755 "$work/out"
    mv -T "$work/out" "$dir" 2>/dev/null || complete || fail "could not move the result to $dir" "check its permissions"
    say "$(du -sh "$dir" | cut -f1) in $dir"
}
