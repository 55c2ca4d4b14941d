"""``python -m aligntax`` is the command line."""

from aligntax.cli.main import run

if __name__ == "__main__":
    run()
