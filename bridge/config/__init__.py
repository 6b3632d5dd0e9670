"""Settings: from the command line, the environment, secret files and a TOML file to one checked, frozen value.

The only pydantic. ``load`` reports all that is wrong at once, each problem with the name of its setting and its
place, and never a value: what stands in the wrong place may be a secret.
"""

from bridge.config.loading import SECRET_DIRECTORIES, load, load_placed
from bridge.config.routes import FieldTable, RouteSettings
from bridge.config.settings import Settings

__all__ = ["SECRET_DIRECTORIES", "FieldTable", "RouteSettings", "Settings", "load", "load_placed"]
