"""The ops of a graph: one file per family, with all knowledge about its op types.

Importing the package registers all of them (registry.py).
"""

from tutelage.core.discovery import import_modules

import_modules(__name__)
