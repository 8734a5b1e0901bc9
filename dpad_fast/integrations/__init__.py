"""One module per training framework, each importing its framework only when used."""
