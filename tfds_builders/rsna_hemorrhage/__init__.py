"""RSNA Intracranial Hemorrhage Detection: head CT slices."""
