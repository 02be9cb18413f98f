"""`python -m convnext`."""

from convnext.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
