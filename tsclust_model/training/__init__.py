"""Train, compare with a challenger, publish, and when to retrain."""
