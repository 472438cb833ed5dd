"""Commands, a few related ones a file, listed in its `COMMANDS`; each returns the exit code.

Imports inside the commands keep `bitwright --help` quick.
"""
