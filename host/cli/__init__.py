"""The commands of `tutelage` but `classify`, by Typer: a module for each group of them."""
