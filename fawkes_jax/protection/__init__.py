"""What a tracker does with features, and what protection is measured by."""
