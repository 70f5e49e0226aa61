"""What the tests start does not look for garbage: it is short, and imports two million objects."""

import gc

gc.disable()
