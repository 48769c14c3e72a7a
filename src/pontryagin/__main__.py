"""`python -m pontryagin` is the command `pontryagin`."""

from pontryagin.cli import main

if __name__ == "__main__":
    main()
