"""``python -m momkd``."""

from momkd.cli import main

if __name__ == "__main__":
    main()
