"""DDTI: thyroid ultrasound images with outlined nodules."""
