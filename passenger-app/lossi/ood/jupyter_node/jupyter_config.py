"""Jupyter's settings in a session: one password, one origin, one folder. Read by Jupyter itself.

What only the node knows comes in ``private/settings.json`` (mode 0600), which `session` writes while Jupyter loads. Imports
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
    """Accepts the password from the portal's card, which cannot read the XSRF cookie; the password itself cannot be forged."""

    def check_xsrf_cookie(self) -> None:
        """Check the origin instead."""
        # Called twice; the first time is before Jupyter knows the user.
        if hasattr(self, "_jupyter_current_user") and not self.check_origin():
            raise HTTPError(403)


private = Path(__file__).parent.parent / "private"
# The session hashes the password meanwhile; it ends this process if that fails.
while not (private / "settings.json").exists():
    time.sleep(0.01)
settings = json.loads((private / "settings.json").read_text("utf-8"))

# Without this, JupyterLab asks whether it may fetch news. Only files hold defaults that users can override.
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
                "ip": settings["address"],
                "port": settings["port"],
                "port_retries": 0,
                "open_browser": False,
                "base_url": settings["base"],
                "default_url": settings["page"],
                "root_dir": settings["folder"],
                "allow_origin": settings["origin"],
                "allow_origin_pat": "",
                "allow_credentials": False,
                "allow_remote_access": True,
                "allow_unauthenticated_access": False,
                "disable_check_xsrf": False,
                "trust_xheaders": False,
                "cookie_secret_file": str(private / "cookie_secret"),
            },
            "LabApp": {
                "default_url": settings["page"],
                "check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
                "news_url": None,
            },
            "JupyterNotebookApp": {"default_url": settings["page"]},
            "IdentityProvider": {"token": "", "secure_cookie": settings["origin"].startswith("https:")},
            "PasswordIdentityProvider": {
                "hashed_password": settings["hashed"],
                "password_required": True,
                "allow_password_change": False,
                "login_handler_class": FromTheCard,
            },
        }
    )
)
