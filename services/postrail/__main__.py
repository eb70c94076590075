"""`python -m postrail` is the `postrail` command."""

from postrail.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
