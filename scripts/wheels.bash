# Takes single files out of PyPI wheels; sourced by libtorch.sh and nccl_headers.sh, after `say`, `fail` and `$work`, a folder.

if python3 -m pip --version >/dev/null 2>&1; then
    pip=(python3 -m pip)
else
    python3 -m venv "$work/venv" >&2 || fail "python3 has neither pip nor venv" "run ./bootstrap.sh setup-tch"
    pip=("$work/venv/bin/python3" -m pip)
fi

# take NAME==VERSION PATTERN…: downloads a wheel, writes the members that match into $work/out, drops the wheel.
# `…/include/…` keeps its folders below `include/`, libraries go to `lib/`. A pattern without a match is an error.
take() {
    local requirement=$1
    shift
    say "downloading $requirement"
    mkdir -p "$work/wheel"
    "${pip[@]}" --quiet --disable-pip-version-check download --no-deps --no-cache-dir --only-binary=:all: \
        --implementation cp --python-version 3.11 --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
        --platform manylinux2010_x86_64 \
        --dest "$work/wheel" "$requirement" >&2 ||
        fail "could not download $requirement from PyPI" "check the network and the disk space, then run this again"
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

