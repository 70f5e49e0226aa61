"""What every fitted model has: its interface, sealed state, comparison and evidence."""
