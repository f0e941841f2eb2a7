"""`python -m eircli` is `eir`."""

from eircli.cli.app import main

if __name__ == "__main__":
    main()
