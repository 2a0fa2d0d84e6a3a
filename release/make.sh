#!/bin/sh
# Makes build/lossi-VERSION.tar.gz: the wheel, the wheels that it needs on this platform, install.sh, documents and sources of apps.
#
#   PYTHON   an interpreter with pip and setuptools; the wheels are for its version and platform
#   WHEELS   0: without the wheels of dependencies; install.sh then downloads them from a package index
#   LOCK     the packages of the environment (requirements/run.lock)
#   BUILD    the folder for the release (build/)
set -eu
tree=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
python=${PYTHON:-$tree/.venv/bin/python}
lock=${LOCK:-$tree/requirements/run.lock}
build=${BUILD:-$tree/build}
umask 022

pip() {
  "$python" -m pip --quiet --disable-pip-version-check --no-input "$@"
}

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
trap 'exit 1' HUP INT TERM
version=$(PYTHONPATH="$tree/passenger-app" "$python" -c 'import lossi; print(lossi.__version__)')
root=$work/lossi-$version
mkdir "$root" "$work/tree"

# Build in a copy: building leaves files behind and reuses those of the last time. Links become copies of their targets.
cp -RL "$tree/passenger-app" "$tree/setup.cfg" "$tree/pyproject.toml" "$tree/README.md" "$tree/LICENSE" "$work/tree"
find "$work/tree" -depth \( -name __pycache__ -o -name '*.egg-info' -o -name build \) -exec rm -rf -- {} +
rm -rf -- "$work/tree/passenger-app/venv" "$work/tree/passenger-app/environment" "$work/tree/passenger-app/tmp"
pip wheel --no-deps --no-build-isolation --wheel-dir "$root" "$work/tree"

cp "$lock" "$root/run.lock"
if [ "${WHEELS:-1}" != 0 ]; then
  mkdir "$work/locks"
  "$python" "$tree/release/locks.py" "$lock" "$work/locks"
  for each in "$work/locks"/*.lock; do
    pip download --only-binary :all: --no-deps --require-hashes --dest "$root/wheelhouse" -r "$each"
  done
  "$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' >"$root/wheelhouse/PYTHON"
fi
cp "$tree/release/install.sh" "$tree/LICENSE" "$tree/README.md" "$tree/SECURITY.md" "$tree/CHANGELOG.md" "$tree/appverse.yml" "$root"
for folder in docs containers ood-apps batch-templates; do
  cp -RL "$tree/$folder" "$root/$folder"
done
find "$root" -depth -name __pycache__ -exec rm -rf -- {} +
chmod 755 "$root/install.sh"
mkdir -p "$build"
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@${SOURCE_DATE_EPOCH:-$(date +%s)}" \
  -czf "$work/release.tar.gz" "lossi-$version"
mv -f -- "$work/release.tar.gz" "$build/lossi-$version.tar.gz"
printf '%s\n' "$build/lossi-$version.tar.gz"
