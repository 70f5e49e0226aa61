"""The entry points of MLproject: each is the command ``tsclust <name>`` (`main` is the demo)."""
