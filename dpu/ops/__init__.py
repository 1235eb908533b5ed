"""The ops of a graph: a file for each family, with everything that is known of its op types.

Importing the package registers all of them (registry.py).
"""

from tutelage.core.discovery import import_modules

import_modules(__name__)
