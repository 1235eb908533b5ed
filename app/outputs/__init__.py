"""Where results go: the terminal, records, annotated pictures and videos."""
