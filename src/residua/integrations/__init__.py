"""Other libraries' own ways of doing it: a file for each, imported by its name, and none of them needed."""
