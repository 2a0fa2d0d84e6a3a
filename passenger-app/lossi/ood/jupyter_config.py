"""Jupyter's own settings in a session: one password, one origin, one folder. Copied into the session's folder and read by Jupyter.

What only the node knows comes in ``private/settings.json`` (mode 0600), which `node` writes while Jupyter loads. Python 3.9; imports
only what the environment has with Jupyter.
"""

import contextlib
import json
import os
import time
from pathlib import Path

from jupyter_server.auth.login import LoginFormHandler
from tornado.web import HTTPError
from traitlets.config import Config


class FromTheCard(LoginFormHandler):  # type: ignore[misc]
    """Takes the password from the card of the portal, which cannot read our XSRF cookie; the password itself cannot be forged."""

    def check_xsrf_cookie(self) -> None:
        """Look at the origin instead."""
        # Asked twice; the first time is before Jupyter knows who asks.
        if hasattr(self, "_jupyter_current_user") and not self.check_origin():
            raise HTTPError(403)


private = Path(__file__).parent / "private"
# The password is being hashed meanwhile; whoever does it ends this process when that fails.
while not (private / "settings.json").exists():
    time.sleep(0.01)
told = json.loads((private / "settings.json").read_text("utf-8"))

# JupyterLab asks whether it may fetch news, of which it gets none here. Defaults lie in files only; what users have set counts more.
with contextlib.suppress(OSError):
    defaults = private / "config" / "labconfig" / "default_setting_overrides.json"
    defaults.parent.mkdir(parents=True, exist_ok=True)
    defaults.write_text(json.dumps({"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}), "utf-8")
    os.environ["JUPYTER_CONFIG_PATH"] = str(private / "config")

c = get_config()  # type: ignore[name-defined]  # noqa: F821
c.merge(
    Config(
        {
            "ServerApp": {
                "ip": told["address"],
                "port": told["port"],
                "port_retries": 0,
                "open_browser": False,
                "base_url": told["base"],
                "default_url": told["page"],
                "root_dir": told["folder"],
                "allow_origin": told["origin"],
                "allow_origin_pat": "",
                "allow_credentials": False,
                "allow_remote_access": True,
                "allow_unauthenticated_access": False,
                "disable_check_xsrf": False,
                "trust_xheaders": False,
                "cookie_secret_file": str(private / "cookie_secret"),
            },
            "LabApp": {
                "default_url": told["page"],
                "check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
                "news_url": None,
            },
            "JupyterNotebookApp": {"default_url": told["page"]},
            "IdentityProvider": {"token": "", "secure_cookie": told["origin"].startswith("https:")},
            "PasswordIdentityProvider": {
                "hashed_password": told["hashed"],
                "password_required": True,
                "allow_password_change": False,
                "login_handler_class": FromTheCard,
            },
        }
    )
)
