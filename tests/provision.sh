#!/bin/sh
# Installs from Debian or Ubuntu what some tests need beyond Python. Without root it says what is skipped, once.
set -eu
missing=""
command -v Rscript >/dev/null 2>&1 || missing="$missing r-base-core"
Rscript -e 'quit(status = !requireNamespace("IRkernel", quietly = TRUE))' >/dev/null 2>&1 || missing="$missing r-cran-irkernel"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
# Passenger as Open OnDemand has it, and its nginx (tests/ood).
[ -e /usr/lib/apache2/modules/mod_passenger.so ] || missing="$missing apache2 libapache2-mod-passenger"
[ -x /usr/sbin/nginx ] || missing="$missing nginx-light"
# Templates of Open OnDemand's apps and their scripts (tests/ood).
for wanted in ruby shellcheck rsync; do
  command -v "$wanted" >/dev/null 2>&1 || missing="$missing $wanted"
done
# A Slurm cluster of the tests' own (tests/slurm), unless an existing one is named.
if [ -z "${LOSSI_TEST_CLUSTER:-}${LOSSI_TEST_SLURM_CONF:-}" ]; then
  for wanted in slurmctld:slurmctld slurmd:slurmd slurmdbd:slurmdbd slurmrestd:slurmrestd sbatch:slurm-client munged:munge \
    mariadbd:mariadb-server mariadb-admin:mariadb-client ps:procps; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${wanted%%:*}" >/dev/null 2>&1 || missing="$missing ${wanted##*:}"
  done
  case $missing in
    *slurm*) missing="$missing slurm-wlm-basic-plugins slurm-wlm-jwt-plugin slurm-wlm-mysql-plugin" ;;
  esac
  # Ordinary users run what is tested there: with an interpreter that is not in root's own folder.
  /usr/bin/python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"
fi
# Images are built, carried and run for real (tests/containers), as root.
if [ "$(id -u)" = 0 ]; then
  for wanted in podman buildah skopeo docker-registry mmdebstrap patchelf runc unsquashfs:squashfs-tools newuidmap:uidmap; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${wanted%%:*}" >/dev/null 2>&1 || missing="$missing ${wanted##*:}"
  done
fi
apptainer_too() { # not a package of Debian 12
  script=$(dirname "$0")/containers/apptainer.sh
  if bash "$script" possible && ! bash "$script" install >/dev/null; then
    echo "Could not install Apptainer; the tests that need it are skipped."
  fi
}
[ -n "$missing" ] || { apptainer_too; exit 0; }
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "Not root on Debian or Ubuntu: tests that need$missing are skipped."
  exit 0
fi
echo "Installing$missing for the tests"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# The packages' own services stay off: the tests start their own.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
fi
# shellcheck disable=SC2086 # a list of package names
if ! { apt-get -q -o DPkg::Lock::Timeout=600 update && apt-get -q -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $missing; } >"$log" 2>&1; then
  tail -n 20 "$log"
  echo "Could not install$missing; the tests that need them are skipped."
fi
rm -f "$log"
apptainer_too
