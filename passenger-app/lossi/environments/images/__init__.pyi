# What other rooms may use of this one; `__init__.py` loads each name when it is first used.
from .build import build_image as build_image
from .pipeline import (
    Ready as Ready,
    Target as Target,
)
from .pull import pull_image as pull_image
from .sif import check_image_file as check_image_file
from .verify import verify_image as verify_image
