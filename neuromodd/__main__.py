"""python -m neuromodd."""

from neuromodd.cli import main

if __name__ == "__main__":
    main()
