"""`python -m perdure` is the command `perdure`, for where scripts are not on the PATH."""

from perdure.cli import main

if __name__ == "__main__":
    main()
