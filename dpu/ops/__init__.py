"""The ops of a graph: a file for each family, with everything that is known of its op types.

Importing the package registers all of them (registry.py).
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
