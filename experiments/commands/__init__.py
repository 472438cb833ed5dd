"""Commands, a few related ones a file, listed in its `COMMANDS`, alone or as a `CommandGroup`.

Each returns the exit code. Imports inside the commands keep `bitwright --help` quick.
"""
