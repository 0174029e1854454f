"""Shows results to people: tables in the terminal, one self-contained page, notebook cells."""
