"""Settings for every test."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)  # machines that are shared are slow at times
settings.load_profile("patient")
