"""Attacks on a memory that take minutes: processes killed, power cut. ``python -m stress.NAME --minutes 10``."""
