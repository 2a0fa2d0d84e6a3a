"""``python -m lossi``: the command, where its script is not on the path."""

from lossi.cli import main

if __name__ == "__main__":
    main()
