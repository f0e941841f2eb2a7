"""`python -m eircli` is `eir`."""

from eircli.cli import main

if __name__ == "__main__":
    main()
