"""``python -m lossi.environments`` prints the JSON schema of a catalogue file: how ``containers/catalog.schema.json`` is made."""

import json
import sys

from lossi.environments.models import schema

sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
