"""Commands of `tutelage` except `classify`, by Typer, with a module for each group."""
