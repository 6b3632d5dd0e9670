"""Settings: read from the command line, environment, secret files and a TOML file into one checked, frozen value.

The only package that imports pydantic. ``load`` reports all problems at once, each with the setting's name and its
source. It never shows a value, which may be a secret put in the wrong place.
"""

from bridge.config.loading import SECRET_DIRECTORIES, load, load_placed, places
from bridge.config.routes import FieldTable, RouteSettings
from bridge.config.settings import Settings

__all__ = ["SECRET_DIRECTORIES", "FieldTable", "RouteSettings", "Settings", "load", "load_placed", "places"]
