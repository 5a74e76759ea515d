"""The same verbs on a command line: ``residua --help``. Nothing heavy is imported before a verb runs."""
