"""The command line ``tsclust``: `main` declares the commands, a module each does the work."""
