"""``python -m tcam``: the command ``tcam``."""

from importlib import import_module

if __name__ == "__main__":
    import_module("pipelines.cli.app").main()  # above this package: see __init__.py
