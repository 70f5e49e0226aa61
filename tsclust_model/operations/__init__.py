"""What a scheduler calls: the loop, its settings, workspace and steps."""
