#!/bin/bash
# A real Apptainer on Debian 12 as root: the package of Debian's unstable release, unpacked beside a private copy of that release's C
# library, so that nothing else of the host changes. Does nothing where there is one. Needs patchelf, squashfs-tools and uidmap.
#   apptainer.sh possible|install
set -euo pipefail

archive() { # the Debian archive that this host's own apt uses, or nothing; sources come in two forms
  local files=()
  mapfile -t files < <(find /etc/apt/sources.list /etc/apt/sources.list.d \( -name '*.list' -o -name '*.sources' \) 2>/dev/null)
  [ ${#files[@]} -eq 0 ] || { grep -hvE '^[[:space:]]*#' "${files[@]}" | grep -oE 'https?://[^] ]+' | grep -E '/debian/?$' | head -n 1; } || true
}

possible() {
  [ "$(id -u)" = 0 ] && [ "$(uname -m)" = x86_64 ] && grep -q '^VERSION_ID="12"' /etc/os-release && [ -n "$(archive)" ]
}

install_it() {
  local mirror work place=/opt/apptainer-sid libexec=/usr/lib/x86_64-linux-gnu/apptainer program
  mirror=$(archive)
  work=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder's name as it is now
  trap "rm -rf '$work'" EXIT
  mkdir -p "$work"/{lists/partial,cache/archives/partial,parts,state,debs}
  touch "$work/state/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror%/} sid main" >"$work/sources.list"
  cat >"$work/apt.conf" <<C
Dir::State::Lists "$work/lists"; Dir::State::Status "$work/state/status"; Dir::Cache "$work/cache";
Dir::Etc::SourceList "$work/sources.list"; Dir::Etc::SourceParts "$work/parts"; Dir::Etc::PreferencesParts "$work/parts";
APT::Sandbox::User "root"; Acquire::Languages "none"; Acquire::Check-Valid-Until "false";
C
  export APT_CONFIG=$work/apt.conf
  apt-get -q update >/dev/null
  (cd "$work/debs" && apt-get -q download apptainer libc6 libseccomp2 libsqlite3-0 squashfuse libsquashfuse0 libfuse3-4 liblz4-1 \
    liblzma5 liblzo2-2 libzstd1 zlib1g fuse2fs libext2fs2t64 libcom-err2 >/dev/null)
  for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/x"; done
  rm -rf "$place"
  mkdir -p "$place/lib"
  cp -a "$work"/x/usr/lib/x86_64-linux-gnu/*.so* "$place/lib/"
  rm -rf "$libexec"
  cp -a "$work/x$libexec" /usr/lib/x86_64-linux-gnu/
  [ -d /etc/apptainer ] || cp -a "$work/x/etc/apptainer" /etc/
  mkdir -p /var/lib/apptainer/mnt/session /var/lib/apptainer/mnt/source "$libexec/bin"
  install "$work/x/usr/bin/squashfuse_ll" "$libexec/bin/squashfuse_ll"
  install "$work/x/usr/bin/apptainer" /usr/bin/apptainer.new
  for program in /usr/bin/apptainer.new "$libexec/bin/starter" "$libexec/bin/squashfuse_ll"; do
    patchelf --set-interpreter "$place/lib/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$place/lib" "$program"
  done
  mv /usr/bin/apptainer.new /usr/bin/apptainer
}

case ${1:-} in
  possible) possible ;;
  install)
    command -v apptainer >/dev/null || { possible && install_it; }
    # Containers of ordinary users mount their images through it.
    [ ! -e /dev/fuse ] || chmod 666 /dev/fuse
    apptainer --version
    ;;
  *)
    echo "usage: apptainer.sh possible|install" >&2
    exit 2
    ;;
esac
