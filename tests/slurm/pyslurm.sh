#!/bin/bash
# Inside the forky chroot: builds PySlurm 25.11 from PyPI against Debian's Slurm 26.05, for which PyPI has none. Its source is
# not changed: it sees a copy of Slurm's headers whose version says 25.11, Slurm's own names of old, and two macros.
set -euo pipefail
export PIP_CONFIG_FILE=/dev/null
version=25.11.2
headers=/opt/pyslurm-headers
place=/opt/pyslurm
rm -rf "$headers" "$place"
mkdir -p "$headers"
cp -r /usr/include/slurm "$headers/"
sed -i 's/^#define SLURM_VERSION_NUMBER .*/#define SLURM_VERSION_NUMBER 0x190b02/' "$headers/slurm/slurm_version.h"
SLURM_LIB_DIR=$(dirname "$(find /usr/lib -name libslurm.so -print -quit)")
export SLURM_LIB_DIR SLURM_INCLUDE_DIR=$headers PYSLURM_BUILD_JOBS=2
export CFLAGS="-O1 -w -DSLURM_BACKWARD_COMPAT -Dslurm_free_ctl_conf=slurm_free_conf -DESLURM_ERROR_ON_DESC_TO_RECORD_COPY=999999"
python3 -m venv "$place"
"$place/bin/pip" install --quiet cython setuptools wheel packaging
"$place/bin/pip" install --no-build-isolation --no-binary pyslurm "pyslurm==$version"
