"""BUSI: breast ultrasound images with lesion masks."""
