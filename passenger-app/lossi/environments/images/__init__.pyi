# The public names of this room; `__init__.py` loads each when it is first used.
from .image_file import check_image_file as check_image_file
from .pipeline import (
    Ready as Ready,
    Target as Target,
    build_image as build_image,
    pull_image as pull_image,
)
from .verify import verify_image as verify_image
