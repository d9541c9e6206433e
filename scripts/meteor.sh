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

. "$(dirname "${BASH_SOURCE[0]}")/wheels.bash"
folder meteor "$version" "${1:-}"

print_exports() { printf 'export VLP_METEOR_DIR=%q\n' "$dir"; }

if complete; then
    print_exports
    exit 0
fi

begin "install Python 3 with pip or venv"
download "pycocoevalcap==$version"

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
finish
print_exports
