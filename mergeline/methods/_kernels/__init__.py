"""The arithmetic that all merge methods share; see README.md beside this file for how the parts fit together."""
