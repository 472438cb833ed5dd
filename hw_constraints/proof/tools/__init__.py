"""Other tools' reports: one file a tool, which reads what it prints and says the command that prints it."""
