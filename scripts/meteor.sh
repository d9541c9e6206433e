#!/usr/bin/env bash
# Fetches the data of METEOR 1.5 (meteor-1.5.jar and paraphrase-en.gz) from PyPI's pycocoevalcap. LGPL, therefore not part of this project.
#
#   scripts/meteor.sh [DIR]              default DIR: ${XDG_CACHE_HOME:-~/.cache}/vlp/meteor
#   eval "$(scripts/meteor.sh)"          the same, and sets VLP_METEOR_DIR, which the tests read
#
# stdout: `export …` lines; everything else goes to stderr. Downloads 104 MB once and keeps 68 MB.
# A second run only prints. The folder appears under its name when it is complete, never before.
set -euo pipefail

version=1.2
jar_sha256=1e57b4c72c0830ebe68558f1c799a624e96cbc1b6045c9f6330e26dcff6eafc2
paraphrases_sha256=c147ac7d2c91f2fbb3ad31e4b352235061eb83145e0434daf217ee9ca5975f48

say() { printf 'meteor: %s\n' "$*" >&2; }
fail() { # MESSAGE HELP
    printf 'error: %s\n  help: %s\n' "$1" "$2" >&2
    exit 1
}

dir=${1:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/vlp/meteor}
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
marker=.complete-$version

if [ -e "$dir/$marker" ]; then
    printf 'export VLP_METEOR_DIR=%q\n' "$dir"
    exit 0
fi

[ ! -e "$dir" ] || fail "$dir exists, but this script did not complete it" "remove it, or name another folder: scripts/meteor.sh DIR"
command -v python3 >/dev/null || fail "no python3, which fetches and unpacks the wheel" "install Python 3 with pip or venv"

mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$dir.part-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

if python3 -m pip --version >/dev/null 2>&1; then
    pip=(python3 -m pip)
else
    python3 -m venv "$work/venv" >&2 || fail "python3 has neither pip nor venv" "install Python 3 with pip or venv"
    pip=("$work/venv/bin/python3" -m pip)
fi

say "downloading pycocoevalcap==$version"
"${pip[@]}" --quiet --disable-pip-version-check download --no-deps --no-cache-dir --only-binary=:all: \
    --dest "$work/wheel" "pycocoevalcap==$version" >&2 ||
    fail "could not download pycocoevalcap==$version from PyPI" "check the network and the disk space, then run this again"

# The layout that the jar expects: the table in data/ beside it.
python3 - "$work/wheel" "$work/out" "$jar_sha256" "$paraphrases_sha256" >&2 <<'PYTHON' || fail "pycocoevalcap $version is not as expected" "run this again"
import hashlib, os, sys, zipfile

folder, target, *sums = sys.argv[1:]
(name,) = os.listdir(folder)
with zipfile.ZipFile(os.path.join(folder, name)) as wheel:
    for member, expected in zip(("meteor-1.5.jar", "data/paraphrase-en.gz"), sums):
        content = wheel.read("pycocoevalcap/meteor/" + member)
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            sys.exit(f"error: {member} of {name} has SHA-256 {found}, expected {expected}")
        path = os.path.join(target, member)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as out:
            out.write(content)
PYTHON
touch "$work/out/$marker"

# Another run may have finished meanwhile: its folder is as good as this one.
chmod 755 "$work/out"
mv -T "$work/out" "$dir" 2>/dev/null || [ -e "$dir/$marker" ] || fail "could not move the result to $dir" "check its permissions"
say "$(du -sh "$dir" | cut -f1) in $dir"
printf 'export VLP_METEOR_DIR=%q\n' "$dir"
