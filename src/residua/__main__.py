"""``python -m residua``, which is the command ``residua`` of this very Python."""

from residua.cli.main import main

if __name__ == "__main__":
    main()
