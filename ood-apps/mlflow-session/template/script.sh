#!/bin/sh
# Starts MLflow with the interpreter that `lossi install` named for compute nodes; it must have Lossi and MLflow.
# The password is passed in the environment, which only its owner can read, not on a command line.
folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P) || exit 1
cd "$folder" || exit 1

refuse() {
  printf '%s\n' "$1" | tee failure.txt >&2
  exit 1
}

python=""
if [ -r environment ]; then
  IFS= read -r python <environment || :
fi
[ -n "$python" ] || refuse "The site has not named an environment for this app (please tell your site's support to run: lossi install)."
[ -x "$python" ] || refuse "This node has no $python, which the site named for this app (please tell your site's support)."

LOSSI_SESSION_SECRET=${password:-} LOSSI_SESSION_HOST=${host:-} LOSSI_SESSION_PORTS=${ports:-}
export LOSSI_SESSION_SECRET LOSSI_SESSION_HOST LOSSI_SESSION_PORTS
unset password
for name in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p'); do
  case $name in
    PYTHON* | VIRTUAL_ENV | MLFLOW_* | _MLFLOW_*) unset "$name" ;;
  esac
done
exec "$python" -I -m lossi.mlflow_ui.session "$folder"
