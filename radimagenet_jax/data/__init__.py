"""From source files to augmented batches on the device."""
